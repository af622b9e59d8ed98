//! `[gateway.http2]`: the port of HTTP/2 and gRPC.

use std::net::SocketAddr;

use super::error::{ConfigError, Place};
use super::table::Value;
use super::tls::Tls;
use super::{CONNECTIONS_MAX, LISTEN_EXPECTED};

/// What all clients of HTTP/2 together may make the process hold, in bytes.
const MEMORY_DEFAULT: u64 = 256 << 20;
const MEMORY_MIN: u64 = 1 << 20;
const MEMORY_MAX: u64 = 64 << 30;
/// More streams than a client has use for on one connection.
const STREAMS_MAX: u16 = 1_024;

/// `[gateway.http2]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http2 {
    /// Address and port for cleartext with prior knowledge; port 0 takes a free one.
    pub listen: Option<SocketAddr>,
    /// The same for TLS, with the certificate of `[gateway.tls]`.
    pub tls_listen: Option<SocketAddr>,
    /// Most connections of the process at once.
    pub connections_max: u32,
    /// Most streams of one connection at once.
    pub streams_max: u32,
    /// Most bytes of requests and answers held at once, for all clients together.
    pub memory: u64,
}

/// The section, and the addresses in it with their places.
pub(super) fn read_http2(
    section: &Value<'_>,
    tls: Option<&Tls>,
) -> Result<(Http2, Vec<(SocketAddr, Place)>), ConfigError> {
    let known = &["listen", "tls_listen", "connections_max", "streams_max", "memory"];
    let table = section.table(known)?;
    let mut listens = Vec::new();
    let mut address = |key: &str| match table.get(key) {
        None => Ok(None),
        Some(value) => {
            let address = value.parsed(LISTEN_EXPECTED)?;
            listens.push((address, value.place()));
            Ok(Some(address))
        }
    };
    let (listen, tls_listen) = (address("listen")?, address("tls_listen")?);
    if let (Some(value), None) = (table.get("tls_listen"), tls) {
        return Err(value.unexpected("a section [gateway.tls] for its certificate"));
    }
    if listens.is_empty() {
        table.require("listen", LISTEN_EXPECTED)?;
    }
    let mut http2 = Http2 {
        listen,
        tls_listen,
        connections_max: 1_024,
        streams_max: 128,
        memory: MEMORY_DEFAULT,
    };
    table.read("connections_max", &mut http2.connections_max, |value| {
        value.integer(1..=CONNECTIONS_MAX).map(u32::from)
    })?;
    table.read("streams_max", &mut http2.streams_max, |value| {
        value.integer(1..=STREAMS_MAX).map(u32::from)
    })?;
    table.read("memory", &mut http2.memory, |value| value.size(MEMORY_MIN..=MEMORY_MAX))?;
    Ok((http2, listens))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Config, Overrides};

    fn read(section: &str) -> Result<Config, ConfigError> {
        Config::read(section, Path::new("nightcore.toml"), Overrides::default())
    }

    #[test]
    fn there_is_no_port_unless_one_is_named() {
        assert_eq!(read("[gateway]").unwrap().gateway.http2, None);
        let message = read("[gateway.http2]\nmemory = \"1MiB\"").unwrap_err().to_string();
        assert!(message.starts_with("nightcore.toml:1: gateway.http2.listen: expected an address"));
    }

    #[test]
    fn every_key_is_read() {
        let text = "[gateway.http2]\nlisten = \"127.0.0.1:0\"\nconnections_max = 5\n\
                    streams_max = 6\nmemory = \"7MiB\"\n";
        let expected = Http2 {
            listen: Some("127.0.0.1:0".parse().unwrap()),
            tls_listen: None,
            connections_max: 5,
            streams_max: 6,
            memory: 7 << 20,
        };
        assert_eq!(read(text).unwrap().gateway.http2, Some(expected));
    }

    #[test]
    fn tls_needs_a_certificate() {
        let message =
            read("[gateway.http2]\ntls_listen = \"127.0.0.1:0\"").unwrap_err().to_string();
        let expected =
            "nightcore.toml:2: gateway.http2.tls_listen: expected a section [gateway.tls]";
        assert!(message.starts_with(expected), "{message}");
    }

    #[test]
    fn what_others_reach_is_refused_unless_called_insecure() {
        let section = "[gateway.http2]\nlisten = \"0.0.0.0:1\"\n";
        let message = read(section).unwrap_err().to_string();
        let expected = "nightcore.toml:2: gateway.http2.listen: expected a loopback address";
        assert!(message.starts_with(expected), "{message}");
        assert!(read(&format!("[gateway]\ninsecure = true\n{section}")).is_ok());
    }
}
