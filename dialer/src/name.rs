//! How the configuration names gateways.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

/// Prefix of names that stand for a service's records.
const SERVICE: &str = "srv:";
/// Prefix of paths of sockets.
const UNIX: &str = "unix:";
/// Bytes of a socket's path: `sun_path` has room for these and their end.
const PATH_SIZE_MAX: usize = 107;
/// Bytes of a name in the DNS.
const NAME_MAX: usize = 253;

/// Where one gateway can be reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Address {
    Tcp(SocketAddr),
    /// A socket of this host.
    Unix(Arc<Path>),
}

/// One gateway, or all those that a name stands for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Name {
    /// `10.0.0.1:8090`.
    Address(SocketAddr),
    /// `unix:/run/nightcore/engines.sock`: that socket of this host; the path is absolute.
    Unix(Arc<Path>),
    /// `gateway.example:8090`: all addresses of that host.
    Host {
        /// Its name.
        host: String,
        /// The engines' port.
        port: u16,
    },
    /// `srv:_nightcore._tcp.example`: all targets of the SRV records, with their ports.
    Service(String),
}

/// A text that names no gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no gateway is named like that")]
pub struct NotAName;

impl Name {
    /// Whether it can only mean this host.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match self {
            Name::Address(address) => address.ip().to_canonical().is_loopback(),
            Name::Unix(_) => true,
            Name::Host { host, .. } => host == "localhost",
            Name::Service(_) => false,
        }
    }
}

impl FromStr for Name {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Name, NotAName> {
        if let Some(service) = text.strip_prefix(SERVICE) {
            return is_name(service).then(|| Name::Service(service.to_owned())).ok_or(NotAName);
        }
        if let Some(path) = text.strip_prefix(UNIX) {
            let fits = path.starts_with('/') && !path.contains('\0') && path.len() <= PATH_SIZE_MAX;
            return fits.then(|| Name::Unix(Path::new(path).into())).ok_or(NotAName);
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return if address.port() == 0 { Err(NotAName) } else { Ok(Name::Address(address)) };
        }
        let (host, port) = text.rsplit_once(':').ok_or(NotAName)?;
        let port: u16 = port.parse().map_err(|_| NotAName)?;
        // What looks like an address and is none is a slip of the pen, not a name.
        let numeric = host.parse::<IpAddr>().is_ok()
            || host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        if port == 0 || numeric || !is_name(host) {
            return Err(NotAName);
        }
        Ok(Name::Host { host: host.to_owned(), port })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Name::Address(address) => write!(f, "{address}"),
            Name::Unix(path) => write!(f, "{UNIX}{}", path.display()),
            Name::Host { host, port } => write!(f, "{host}:{port}"),
            Name::Service(service) => write!(f, "{SERVICE}{service}"),
        }
    }
}

impl Address {
    /// Whether it can only be on this host.
    pub(crate) fn is_loopback(&self) -> bool {
        match self {
            Address::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Address::Unix(_) => true,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => write!(f, "{address}"),
            Address::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

/// Labels of letters, digits, `-` and `_` with dots between them.
fn is_name(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let is_label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(is_part);
    let labels = text.strip_suffix('.').unwrap_or(text);
    text.len() <= NAME_MAX && labels.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_four_forms_are_read_and_written() {
        let address = |text: &str| Name::Address(text.parse().unwrap());
        let host = |host: &str, port| Name::Host { host: host.to_owned(), port };
        for (text, name) in [
            ("10.0.0.1:8090", address("10.0.0.1:8090")),
            ("[::1]:8090", address("[::1]:8090")),
            ("gw.example:8090", host("gw.example", 8090)),
            ("localhost:1", host("localhost", 1)),
            ("gw.example.:1", host("gw.example.", 1)),
            ("unix:/run/a b.sock", Name::Unix(Path::new("/run/a b.sock").into())),
            ("srv:_nightcore._tcp.example", Name::Service("_nightcore._tcp.example".to_owned())),
        ] {
            assert_eq!(text.parse::<Name>().unwrap(), name);
            assert_eq!(name.to_string(), text);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let long = format!("{}:1", "a".repeat(64));
        let long_path = format!("unix:/{}", "a".repeat(PATH_SIZE_MAX));
        for text in [
            "",
            ":",
            "gw",
            "gw:",
            "gw:0",
            "gw:65536",
            "10.0.0.1:0",
            "10.0.0:1",
            "1:2:3",
            "a b:1",
            "gw..example:1",
            ".:1",
            "srv:",
            "srv:a b",
            "srv:gw:1",
            "http://gw:1",
            "unix:",
            "unix:engines.sock",
            "unix:/a\0b",
            &long,
            &long_path,
        ] {
            assert_eq!(text.parse::<Name>(), Err(NotAName), "{text:?}");
        }
    }

    #[test]
    fn only_what_cannot_be_elsewhere_is_loopback() {
        for (text, expected) in [
            ("127.0.0.2:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("localhost:1", true),
            ("unix:/run/engines.sock", true),
            ("10.0.0.1:1", false),
            ("gw.example:1", false),
            ("srv:localhost", false),
        ] {
            assert_eq!(text.parse::<Name>().unwrap().is_loopback(), expected, "{text}");
        }
    }
}
