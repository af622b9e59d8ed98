//! Which resource a request names. Paths are compared as bytes: nothing is decoded or normalised,
//! so a name has one spelling, and what a function gets as suffix and query is what was sent.

use crate::http::head::{Head, Method};
use crate::reject::Reject;

/// Longest name of a function.
const NAME_MAX: usize = 64;
const FUNCTION_PREFIX: &[u8] = b"/function/";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    /// `suffix` is empty or begins with a slash; `query` comes without its question mark.
    Function {
        name: &'a [u8],
        suffix: &'a [u8],
        query: &'a [u8],
    },
    Health,
    Ready,
    Metrics,
    Functions,
}

pub(crate) fn route<'a>(head: &Head<'a>) -> Result<Route<'a>, Reject> {
    let (path, query) = split_at_byte(path_of(head.target)?, b'?');
    if let Some(rest) = path.strip_prefix(FUNCTION_PREFIX) {
        let name_size = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
        let (name, suffix) = rest.split_at(name_size);
        if !is_name(name) {
            return Err(Reject::NotFound("no such function"));
        }
        return match head.method {
            Method::Get | Method::Head | Method::Post => {
                Ok(Route::Function { name, suffix, query })
            }
            Method::Other => Err(Reject::MethodNotAllowed { allow: "GET, HEAD, POST" }),
        };
    }
    let route = match path {
        b"/healthz" => Route::Health,
        b"/readyz" => Route::Ready,
        b"/metrics" => Route::Metrics,
        b"/v1/functions" => Route::Functions,
        _ => return Err(Reject::NotFound("no such path")),
    };
    match head.method {
        Method::Get | Method::Head => Ok(route),
        Method::Post | Method::Other => Err(Reject::MethodNotAllowed { allow: "GET, HEAD" }),
    }
}

/// The path of a target in origin form, or in absolute form as proxies send it.
fn path_of(target: &[u8]) -> Result<&[u8], Reject> {
    if target.first() == Some(&b'/') {
        return Ok(target);
    }
    let has_scheme = |scheme: &[u8]| {
        target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    };
    let authority_at = match () {
        () if has_scheme(b"http://") => b"http://".len(),
        () if has_scheme(b"https://") => b"https://".len(),
        () => return Err(Reject::NotFound("no such path")),
    };
    let rest = &target[authority_at..];
    match rest.iter().position(|byte| matches!(byte, b'/' | b'?')) {
        Some(at) if rest[at] == b'/' => Ok(&rest[at..]),
        _ => Err(Reject::NotFound("no such path")),
    }
}

fn is_name(name: &[u8]) -> bool {
    (1..=NAME_MAX).contains(&name.len())
        && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(byte))
}

/// The parts before and behind the first `separator`; the second is empty without one.
fn split_at_byte(bytes: &[u8], separator: u8) -> (&[u8], &[u8]) {
    match bytes.iter().position(|byte| *byte == separator) {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (bytes, &[]),
    }
}
