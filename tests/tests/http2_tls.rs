//! HTTP/2 over TLS: the protocol is agreed on in the handshake, and certificates are replaced without a
//! restart.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use nightcore_tests::http2::Raw;
use nightcore_tests::{Http2, Stack, functions, wait_until};
use nix::sys::signal::Signal;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;

/// Writes a new certificate for `localhost`, and returns it.
fn certify(directory: &Path) -> CertificateDer<'static> {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    fs::write(directory.join("key.pem"), signing_key.serialize_pem()).expect("a file");
    fs::write(directory.join("cert.pem"), cert.pem()).expect("a file");
    cert.der().clone()
}

fn start(directory: &Path) -> Stack {
    let path = directory.display();
    let tls = format!(
        "[gateway.tls]\nlisten = \"127.0.0.1:0\"\ncertificate = \"{path}/cert.pem\"\n\
         key = \"{path}/key.pem\"\n"
    );
    let http2 = "[gateway.http2]\ntls_listen = \"127.0.0.1:0\"\n";
    Stack::start(&format!("{tls}{http2}{}", functions(&["echo"])))
}

fn client(trusted: &[&CertificateDer<'static>], protocol: &[u8]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in trusted {
        roots.add((*certificate).clone()).expect("it can be trusted");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3 is there");
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    Arc::new(config)
}

#[test]
fn requests_and_calls_of_grpc_are_served_over_tls() {
    let directory = TempDir::new().expect("a directory");
    let certificate = certify(directory.path());
    let stack = start(directory.path());
    let address = stack.http2_tls_address();
    let (mut over_tls, shown) =
        Http2::connect_tls(address, client(&[&certificate], b"h2")).expect("a connection");
    assert_eq!(shown, certificate);
    let body = vec![7; 300_000];
    assert!(over_tls.call("echo", &body).body == body);
    let answer = over_tls.grpc("/some.echo/Say", &[], &body);
    assert_eq!(answer.grpc_status(), 0);
    assert!(answer.message() == body);
}

#[test]
fn who_speaks_something_else_is_turned_away_and_nobody_else_notices() {
    let directory = TempDir::new().expect("a directory");
    let certificate = certify(directory.path());
    let stack = start(directory.path());
    let address = stack.http2_tls_address();
    let (mut other, _) =
        Http2::connect_tls(address, client(&[&certificate], b"h2")).expect("a connection");
    assert!(Http2::connect_tls(address, client(&[&certificate], b"http/1.1")).is_err());
    let mut cleartext = Raw::greet(address, &[]);
    cleartext.wait_for_end();
    wait_until("both were counted", || {
        stack.metric_line("nightcore_http2_connections_closed_total{reason=\"handshake\"}") == 2
    });
    assert_eq!(other.call("echo", b"a").body, b"a");
}

#[test]
fn a_new_certificate_is_shown_without_a_restart() {
    let directory = TempDir::new().expect("a directory");
    let first = certify(directory.path());
    let stack = start(directory.path());
    let address = stack.http2_tls_address();
    let (mut before, _) =
        Http2::connect_tls(address, client(&[&first], b"h2")).expect("a connection");
    assert_eq!(before.call("echo", b"a").body, b"a");
    let second = certify(directory.path());
    stack.signal(Signal::SIGHUP);
    wait_until("the new certificate is shown", || {
        let config = client(&[&first, &second], b"h2");
        let (_, shown) = Http2::connect_tls(address, config).expect("a connection");
        shown == second
    });
    assert_eq!(before.call("echo", b"b").body, b"b", "who was there goes on");
}
