//! Which web pages may read answers (the Fetch standard's CORS protocol). Off unless origins are
//! configured. Cookies are never part of it: a page shows a key or token itself, so
//! `Access-Control-Allow-Credentials` is never sent, and `"*"` opens to every page no more than a key
//! would.

/// Longest list of request fields that a preflight gets back, in bytes.
const FIELDS_MAX: usize = 1024;
/// Longest origin in bytes: a scheme, a host name of 253 and a port.
const ORIGIN_MAX: usize = 300;
/// Most origins: each request with an `Origin` is compared with all of them.
pub const ORIGINS_MAX: usize = 64;
/// How long a browser need not ask again, in seconds.
const MAX_AGE_S: &[u8] = b"600";
/// What a page may read of an answer beside what it always may.
const EXPOSED: &[u8] = b"X-Request-Id, Retry-After";

/// Name and value of a field.
type Field<'a> = (&'a [u8], &'a [u8]);

/// The origins whose pages may read answers.
#[derive(Debug)]
pub struct Cors {
    origins: Origins,
}

#[derive(Debug)]
enum Origins {
    Any,
    Listed(Vec<Box<[u8]>>),
}

/// What a request's `Origin` is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// There is none, or none that is listed.
    Other,
    /// All are welcome.
    Any,
    /// The one at this place of the list.
    Listed(u16),
}

impl Cors {
    /// Of origins that are [each one](is_origin), at most [`ORIGINS_MAX`]; a `"*"` among them is all
    /// of them.
    #[must_use]
    pub fn new(origins: &[String]) -> Cors {
        if origins.iter().any(|origin| origin == "*") {
            return Cors { origins: Origins::Any };
        }
        let listed = origins.iter().take(ORIGINS_MAX);
        let listed = listed.map(|origin| origin.as_bytes().into()).collect();
        Cors { origins: Origins::Listed(listed) }
    }

    /// Whose page asks, by the fields of its request.
    pub fn origin_of<'a>(&self, fields: impl Iterator<Item = Field<'a>>) -> Origin {
        let mut sent = named(fields, b"origin");
        let (Some(origin), None) = (sent.next(), sent.next()) else { return Origin::Other };
        match &self.origins {
            Origins::Any => Origin::Any,
            // Bytes, as browsers write them: lower case, without a default port.
            Origins::Listed(listed) => {
                let at = listed.iter().position(|listed| **listed == *origin);
                at.and_then(|at| u16::try_from(at).ok()).map_or(Origin::Other, Origin::Listed)
            }
        }
    }

    /// The fields of every answer. `Vary` stands also where no page asked: a cache must not give one
    /// page the answer to another's request.
    pub fn write(&self, origin: Origin, mut field: impl FnMut(&'static [u8], &[u8])) {
        let allowed: Option<&[u8]> = match (origin, &self.origins) {
            (Origin::Any, _) => Some(b"*"),
            (Origin::Listed(at), Origins::Listed(listed)) => {
                listed.get(usize::from(at)).map(|origin| &**origin)
            }
            (Origin::Listed(_), Origins::Any) | (Origin::Other, _) => None,
        };
        if let Some(allowed) = allowed {
            field(b"Access-Control-Allow-Origin", allowed);
            field(b"Access-Control-Expose-Headers", EXPOSED);
        }
        if matches!(self.origins, Origins::Listed(_)) {
            field(b"Vary", b"Origin");
        }
    }
}

/// Whether a request is a preflight: a browser's question on behalf of a page. It shows no key, since
/// a browser has none, and it reaches no function.
pub(crate) fn is_preflight<'a>(
    method: &[u8],
    origin: Origin,
    fields: impl Iterator<Item = Field<'a>>,
) -> bool {
    method == b"OPTIONS"
        && origin != Origin::Other
        && named(fields, b"access-control-request-method").next().is_some()
}

/// The fields of the answer to a preflight with these. The request's own are given back: which ones a
/// function understands is not known here.
pub fn write_preflight<'a>(
    fields: impl Iterator<Item = Field<'a>>,
    mut field: impl FnMut(&'static [u8], &[u8]),
) {
    let wanted = named(fields, b"access-control-request-headers").next();
    field(b"Access-Control-Allow-Methods", b"GET, HEAD, POST");
    let is_list = |value: &[u8]| {
        let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_, ".contains(byte);
        (1..=FIELDS_MAX).contains(&value.len()) && value.iter().all(allowed)
    };
    if let Some(wanted) = wanted.filter(|value| is_list(value)) {
        field(b"Access-Control-Allow-Headers", wanted);
    }
    field(b"Access-Control-Max-Age", MAX_AGE_S);
    field(b"Vary", b"Access-Control-Request-Method, Access-Control-Request-Headers");
}

/// Whether a field of an answer is ours to write while this is on.
#[must_use]
pub fn is_ours(name: &[u8]) -> bool {
    const PREFIX: &[u8] = b"access-control-";
    name.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
}

/// The values of the fields of this name.
fn named<'a>(
    fields: impl Iterator<Item = Field<'a>>,
    name: &'static [u8],
) -> impl Iterator<Item = &'a [u8]> {
    fields.filter(|(it, _)| it.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// Whether a text is `"*"` or an origin as browsers write it: scheme, host and perhaps a port, in lower
/// case, and nothing behind.
#[must_use]
pub fn is_origin(text: &str) -> bool {
    if text == "*" {
        return true;
    }
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (rest, None),
    };
    let is_scheme = !scheme.is_empty()
        && scheme.bytes().all(|byte| byte.is_ascii_lowercase() || b"+-.".contains(&byte));
    let of_host =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._[]:".contains(&byte);
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|number| number.to_string() == port);
    text.len() <= ORIGIN_MAX
        && is_scheme
        && !host.is_empty()
        && host.bytes().all(of_host)
        && port.is_none_or(is_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_what_browsers_write_and_nothing_more() {
        for origin in [
            "*",
            "https://a.example",
            "http://localhost:3000",
            "http://[::1]:8080",
            "http://[::1]",
            "moz-extension://0a1b",
        ] {
            assert!(is_origin(origin), "{origin}");
        }
        for other in [
            "",
            "a.example",
            "https://",
            "https://A.example",
            "https://a.example/",
            "https://a.example/x",
            "https://a.example:",
            "https://a.example:080",
            "https://a.example:65536",
            "https://*.example",
            "null",
            "https://a.example\r\nX: y",
        ] {
            assert!(!is_origin(other), "{other}");
        }
    }
}
