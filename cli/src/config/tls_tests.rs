//! What `[gateway.tls]` and `[gateway.engines]` take, and every refusal with its line.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

/// A directory with two certificates and their keys, a key for links, and files that are none of these.
struct Files {
    directory: tempfile::TempDir,
}

impl Files {
    fn new() -> Files {
        let files = Files { directory: tempfile::tempdir().unwrap() };
        for name in ["a", "b"] {
            let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
            files.write(&format!("{name}.pem"), &made.cert.pem());
            files.write(&format!("{name}.key"), &made.signing_key.serialize_pem());
        }
        files.write("empty.pem", "");
        files.write("broken.pem", "-----BEGIN CERTIFICATE-----\n*\n-----END CERTIFICATE-----\n");
        files.write_secret("link.key", &format!("{}\n", "k".repeat(32)));
        files
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.directory.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    }

    fn write_secret(&self, name: &str, text: &str) {
        self.write(name, text);
        let path = self.directory.path().join(name);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    }

    fn read(&self, text: &str) -> Result<Config, ConfigError> {
        let file = self.directory.path().join("nightcore.toml");
        Config::read(text, &file, Overrides::default())
    }

    /// The message with which a text is refused, without the directory.
    fn refusal(&self, text: &str) -> String {
        let message = self.read(text).unwrap_err().to_string();
        message.replace(&format!("{}/", self.directory.path().display()), "")
    }
}

const TLS: &str = "[gateway.tls]\nlisten = \"127.0.0.1:8443\"\n";
const ENGINES: &str = "[gateway.engines]\nlisten = \"10.0.0.1:8090\"\n";

#[test]
fn the_files_of_a_door_lie_beside_the_configuration() {
    let files = Files::new();
    let config = files.read(&format!("{TLS}certificate = \"a.pem\"\nkey = \"a.key\"\n")).unwrap();
    let tls = config.gateway.tls.unwrap();
    assert_eq!(tls.listen, "127.0.0.1:8443".parse().unwrap());
    assert_eq!(tls.files.certificate, files.directory.path().join("a.pem"));
    assert_eq!(tls.files.key, files.directory.path().join("a.key"));
    assert!(tls.files.load().is_ok());
}

#[test]
fn a_certificate_that_cannot_be_used_is_refused_at_its_line() {
    let files = Files::new();
    for (lines, expected) in [
        (
            "certificate = \"a.pem\"\nkey = \"b.key\"",
            "nightcore.toml:4: gateway.tls.key: b.key: expected the key of the certificate in a.pem",
        ),
        (
            "certificate = \"c.pem\"\nkey = \"a.key\"",
            "nightcore.toml:3: gateway.tls.certificate: c.pem: cannot be read: \
             No such file or directory (os error 2)",
        ),
        (
            "certificate = \"empty.pem\"\nkey = \"a.key\"",
            "nightcore.toml:3: gateway.tls.certificate: empty.pem: \
             expected a certificate in PEM, found none",
        ),
        (
            "certificate = \"a.pem\"\nkey = \"a.pem\"",
            "nightcore.toml:4: gateway.tls.key: a.pem: expected a private key in PEM, found none",
        ),
        (
            "certificate = \"a.pem\"",
            "nightcore.toml:1: gateway.tls.key: expected the path of a PEM file, \
             but the key is missing",
        ),
        (
            "certificate = 1",
            "nightcore.toml:1: gateway.tls.key: expected the path of a PEM file, \
             but the key is missing",
        ),
    ] {
        assert_eq!(files.refusal(&format!("{TLS}{lines}\n")), expected);
    }
    let message = files.refusal(&format!("{TLS}certificate = \"broken.pem\"\nkey = \"a.key\"\n"));
    assert!(
        message
            .starts_with("nightcore.toml:3: gateway.tls.certificate: broken.pem: not valid PEM: ")
    );
}

#[test]
fn the_door_with_tls_keeps_to_loopback_as_the_other_one_does() {
    let files = Files::new();
    let lines = "certificate = \"a.pem\"\nkey = \"a.key\"\n";
    let open = format!("[gateway.tls]\nlisten = \"0.0.0.0:8443\"\n{lines}");
    let message = files.refusal(&open);
    assert!(message.starts_with("nightcore.toml:2: gateway.tls.listen: "), "{message}");
    assert!(files.read(&format!("[gateway]\ninsecure = true\n{open}")).is_ok());
}

#[test]
fn engines_prove_themselves_by_one_of_three_ways() {
    let files = Files::new();
    let trust = |lines: &str| files.read(&format!("{ENGINES}{lines}\n")).unwrap().gateway.engines;
    let directory = files.directory.path();
    let by_key = trust("key_file = \"link.key\"").unwrap().trust;
    assert_eq!(by_key, Trust::SharedKey { file: directory.join("link.key") });
    let lines = "certificate = \"a.pem\"\nkey = \"a.key\"\nauthorities = \"b.pem\"";
    let by_certificate = trust(lines).unwrap().trust;
    let own =
        CertificateFiles { certificate: directory.join("a.pem"), key: directory.join("a.key") };
    let expected = Trust::Certificates { own, authorities: directory.join("b.pem") };
    assert_eq!(by_certificate, expected);
    let text = "[gateway.engines]\nlisten = \"127.0.0.1:0\"\ninsecure = true\n";
    assert_eq!(files.read(text).unwrap().gateway.engines.unwrap().trust, Trust::Insecure);
}

#[test]
fn an_engines_port_that_everyone_could_join_is_refused() {
    let files = Files::new();
    files.write("public.key", &"k".repeat(32));
    files.write_secret("short.key", &format!("{}\r\n", "k".repeat(31)));
    let ways = "key_file, or certificate, key and authorities, or insecure = true";
    for (lines, expected) in [
        ("", format!("1: gateway.engines: expected {ways}, but the key is missing")),
        (
            "insecure = true",
            "2: gateway.engines.listen: expected a loopback address, because insecure = true lets \
             everyone join, got \"10.0.0.1:8090\" (key_file, or certificate, key and authorities \
             permit it)"
                .to_owned(),
        ),
        (
            "key_file = \"link.key\"\ninsecure = true",
            format!("3: gateway.engines.key_file: expected only one of {ways}"),
        ),
        (
            "key_file = \"link.key\"\nkey = \"a.key\"",
            format!("3: gateway.engines.key_file: expected only one of {ways}"),
        ),
        (
            "certificate = \"a.pem\"\nkey = \"a.key\"",
            "1: gateway.engines.authorities: expected the path of a PEM file, but the key is \
             missing"
                .to_owned(),
        ),
        (
            "certificate = \"a.pem\"\nkey = \"a.key\"\nauthorities = \"a.key\"",
            "5: gateway.engines.authorities: a.key: expected a certificate in PEM, found none"
                .to_owned(),
        ),
        (
            "key_file = \"public.key\"",
            "3: gateway.engines.key_file: public.key: others can read it, so it is no secret: \
             chmod o-r"
                .to_owned(),
        ),
        (
            "key_file = \"short.key\"",
            "3: gateway.engines.key_file: short.key: expected at least 32 bytes, got 31 \
             (openssl rand -hex 32 makes a key)"
                .to_owned(),
        ),
    ] {
        let message = files.refusal(&format!("{ENGINES}{lines}\n"));
        assert_eq!(message, format!("nightcore.toml:{expected}"), "{lines}");
    }
}

#[test]
fn engines_of_this_host_join_by_a_path_beside_an_address_or_instead_of_it() {
    let files = Files::new();
    let port = |lines: &str| {
        let read = files.read(&format!("[gateway.engines]\n{lines}\n"));
        read.unwrap().gateway.engines.unwrap()
    };
    let path = "path = \"/run/engines.sock\"";
    let alone = port(&format!("{path}\ninsecure = true"));
    assert_eq!((alone.listen, alone.trust), (None, Trust::Insecure));
    assert_eq!(alone.path, Some("/run/engines.sock".into()));
    let both = port(&format!("{path}\nlisten = \"10.0.0.1:8090\"\nkey_file = \"link.key\""));
    assert_eq!(both.listen, Some("10.0.0.1:8090".parse().unwrap()));
    assert_eq!(both.path, Some("/run/engines.sock".into()));
}

#[test]
fn a_path_at_which_no_engine_could_join_is_refused() {
    let files = Files::new();
    let long = format!("/{}", "a".repeat(96));
    for path in ["engines.sock", "", "/run/", "/run/a\\u0000b", &long] {
        let message = files.refusal(&format!("[gateway.engines]\npath = \"{path}\"\n"));
        let expected = "nightcore.toml:2: gateway.engines.path: expected an absolute path of at \
                        most 96 bytes, got ";
        assert!(message.starts_with(expected), "{message}");
    }
    let open = format!("{ENGINES}path = \"/run/engines.sock\"\ninsecure = true\n");
    let message = files.refusal(&open);
    assert!(message.starts_with("nightcore.toml:2: gateway.engines.listen: expected a loopback"));
    let message = files.refusal("[gateway.engines]\ninsecure = true\n");
    assert!(message.contains("gateway.engines.listen: expected an address and port"), "{message}");
    assert!(message.ends_with("or path instead of it, but the key is missing"), "{message}");
}
