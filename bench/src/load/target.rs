//! Where a load goes: an `http://` URL, resolved once, and the bytes of the one request sent there.

use std::fmt::Write as _;
use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;

use bytes::Bytes;

/// A resolved URL without its scheme.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The first address that the host name resolves to.
    pub address: SocketAddr,
    /// Host and port as written, for the `Host` header.
    pub authority: String,
    /// Path and query, starting with `/`.
    pub path: String,
}

/// Why a URL is no target.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// Another scheme, or none.
    #[error("\"{0}\" does not start with http://, the one scheme that is supported")]
    Scheme(String),
    /// What a request line or a header cannot hold.
    #[error("\"{0}\" holds a space or a control character")]
    Character(String),
    /// The host name cannot be resolved.
    #[error("{authority} cannot be resolved: {source}")]
    Resolve {
        /// Host and port as asked for.
        authority: String,
        /// What the resolver said.
        source: std::io::Error,
    },
    /// The host name resolves to nothing.
    #[error("{0} has no address")]
    NoAddress(String),
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(url: &str) -> Result<Target, TargetError> {
        let rest =
            url.strip_prefix("http://").ok_or_else(|| TargetError::Scheme(url.to_owned()))?;
        if rest.chars().any(|char| char.is_whitespace() || char.is_control()) {
            return Err(TargetError::Character(url.to_owned()));
        }
        let rest = rest.split('#').next().unwrap_or(rest);
        let path_at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(path_at);
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
        let with_port = if has_port { authority.to_owned() } else { format!("{authority}:80") };
        let mut addresses = with_port
            .to_socket_addrs()
            .map_err(|source| TargetError::Resolve { authority: authority.to_owned(), source })?;
        let address =
            addresses.next().ok_or_else(|| TargetError::NoAddress(authority.to_owned()))?;
        Ok(Target { address, authority: authority.to_owned(), path })
    }
}

impl Target {
    /// The request, head and body, ready to be sent as it is. `Host` and, where there is a body or
    /// the method is known to have one, `Content-Length` are added unless `headers` has them.
    #[must_use]
    pub fn request(&self, method: &str, headers: &[(String, String)], body: &[u8]) -> Bytes {
        let has = |name: &str| headers.iter().any(|(given, _)| given.eq_ignore_ascii_case(name));
        let mut head = format!("{method} {} HTTP/1.1\r\n", self.path);
        let mut line = |name: &str, value: &str| {
            write!(head, "{name}: {value}\r\n").expect("a string takes all");
        };
        if !has("host") {
            line("Host", &self.authority);
        }
        for (name, value) in headers {
            line(name, value);
        }
        let expects_body = matches!(method, "POST" | "PUT" | "PATCH");
        if (expects_body || !body.is_empty()) && !has("content-length") {
            line("Content-Length", &body.len().to_string());
        }
        head.push_str("\r\n");
        let mut request = head.into_bytes();
        request.extend_from_slice(body);
        Bytes::from(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_gives_address_authority_and_path() {
        let target: Target = "http://127.0.0.1:8080/function/nop?x=1#part".parse().unwrap();
        assert_eq!(target.address, "127.0.0.1:8080".parse().unwrap());
        assert_eq!(target.authority, "127.0.0.1:8080");
        assert_eq!(target.path, "/function/nop?x=1");
    }

    #[test]
    fn port_and_path_have_defaults() {
        let target: Target = "http://127.0.0.1".parse().unwrap();
        assert_eq!((target.address.port(), target.path.as_str()), (80, "/"));
        let target: Target = "http://[::1]?q".parse().unwrap();
        assert_eq!((target.address.port(), target.path.as_str()), (80, "/?q"));
        let target: Target = "http://[::1]:81/".parse().unwrap();
        assert_eq!(target.address.port(), 81);
    }

    #[test]
    fn what_is_no_url_of_ours_is_refused() {
        assert!(matches!("https://127.0.0.1".parse::<Target>(), Err(TargetError::Scheme(_))));
        assert!(matches!("127.0.0.1:80".parse::<Target>(), Err(TargetError::Scheme(_))));
        let split = "http://127.0.0.1/a b".parse::<Target>();
        assert!(matches!(split, Err(TargetError::Character(_))));
        let nameless = "http://:x/".parse::<Target>();
        assert!(matches!(nameless, Err(TargetError::Resolve { .. })));
    }

    #[test]
    fn a_request_has_a_host_and_the_length_of_its_body() {
        let target: Target = "http://127.0.0.1:1/f".parse().unwrap();
        let get = target.request("GET", &[], b"");
        assert_eq!(&get[..], b"GET /f HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n");
        let headers = [("host".to_owned(), "other".to_owned())];
        let post = target.request("POST", &headers, b"ab");
        assert_eq!(&post[..], b"POST /f HTTP/1.1\r\nhost: other\r\nContent-Length: 2\r\n\r\nab");
    }
}
