//! Which resource a request names. Paths are compared as bytes: nothing is decoded or normalised,
//! so a name has one spelling, and what a function gets as suffix and query is what was sent.

use crate::arrival::Door;
use crate::config::Documents;
use crate::http::head::Method;
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
    Engines,
}

impl Route<'_> {
    /// Whether it is there for those who come in by `door`.
    pub(crate) fn permitted(self, door: Door, documents: Documents) -> Result<Self, Reject> {
        match (door, documents, self) {
            (Door::Admin, _, Route::Function { .. }) => {
                Err(Reject::NotFound("functions are called at the public port, not at this one"))
            }
            (
                Door::Public,
                Documents::Apart,
                Route::Metrics | Route::Functions | Route::Engines,
            ) => Err(Reject::NotFound("no such path")),
            _ => Ok(self),
        }
    }
}

pub(crate) fn route(method: Method, target: &[u8]) -> Result<Route<'_>, Reject> {
    let (path, query) = split_at_byte(path_of(target)?, b'?');
    if let Some(rest) = path.strip_prefix(FUNCTION_PREFIX) {
        let name_size = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
        let (name, suffix) = rest.split_at(name_size);
        if !is_name(name) {
            return Err(Reject::NotFound("no such function"));
        }
        return match method {
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
        b"/v1/engines" => Route::Engines,
        _ => return Err(Reject::NotFound("no such path")),
    };
    match method {
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

pub(crate) fn is_name(name: &[u8]) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::http::head;

    fn check(request_line: &str, expected: Result<Route<'_>, Reject>) {
        let text = format!("{request_line} HTTP/1.1\r\nHost: h\r\n\r\n");
        let mut storage = head::storage();
        let head = head::parse(text.as_bytes(), &mut storage, &Config::default().bounded());
        let head = head.unwrap().unwrap();
        assert_eq!(route(head.method, head.target), expected, "{request_line}");
    }

    fn function<'a>(name: &'a str, suffix: &'a str, query: &'a str) -> Route<'a> {
        let [name, suffix, query] = [name, suffix, query].map(str::as_bytes);
        Route::Function { name, suffix, query }
    }

    #[test]
    fn functions_are_found_with_suffix_and_query() {
        check("POST /function/f", Ok(function("f", "", "")));
        check("GET /function/a.b_c-9/", Ok(function("a.b_c-9", "/", "")));
        check("HEAD /function/f/x/y?z=/?1", Ok(function("f", "/x/y", "z=/?1")));
        check("GET /function/f?", Ok(function("f", "", "")));
        check("GET HTTP://h:80/function/f/x?y", Ok(function("f", "/x", "y")));
        let longest = "x".repeat(64);
        check(&format!("GET /function/{longest}"), Ok(function(&longest, "", "")));
    }

    #[test]
    fn own_resources_are_found() {
        check("GET /healthz", Ok(Route::Health));
        check("HEAD /readyz?verbose", Ok(Route::Ready));
        check("GET /metrics", Ok(Route::Metrics));
        check("GET /v1/functions", Ok(Route::Functions));
        check("GET /v1/engines", Ok(Route::Engines));
    }

    #[test]
    fn other_methods_are_told_which_ones_there_are() {
        let own = Err(Reject::MethodNotAllowed { allow: "GET, HEAD" });
        for path in ["/healthz", "/readyz", "/metrics", "/v1/functions", "/v1/engines"] {
            for method in ["POST", "PUT", "OPTIONS"] {
                check(&format!("{method} {path}"), own);
            }
        }
        let function = Err(Reject::MethodNotAllowed { allow: "GET, HEAD, POST" });
        check("DELETE /function/f", function);
        check("post /function/f", function);
    }

    #[test]
    fn what_is_there_depends_on_the_door() {
        let function = function("f", "", "");
        let documents = [Route::Metrics, Route::Functions, Route::Engines];
        for place in [Documents::Everywhere, Documents::Apart] {
            for route in [Route::Health, Route::Ready] {
                assert_eq!(route.permitted(Door::Public, place), Ok(route));
                assert_eq!(route.permitted(Door::Admin, place), Ok(route));
            }
            assert_eq!(function.permitted(Door::Public, place), Ok(function));
            let elsewhere = function.permitted(Door::Admin, place);
            assert!(matches!(elsewhere, Err(Reject::NotFound(why)) if why.contains("public port")));
        }
        for route in documents {
            assert_eq!(route.permitted(Door::Public, Documents::Everywhere), Ok(route));
            assert_eq!(route.permitted(Door::Admin, Documents::Apart), Ok(route));
            let hidden = route.permitted(Door::Public, Documents::Apart);
            assert_eq!(hidden, Err(Reject::NotFound("no such path")));
        }
    }

    #[test]
    fn everything_else_is_not_found() {
        let name = Err(Reject::NotFound("no such function"));
        for rest in ["", "/x", "?x", "a%62", "a~b", "ä"] {
            check(&format!("GET /function/{rest}"), name);
        }
        check(&format!("GET /function/{}", "x".repeat(65)), name);
        let path = Err(Reject::NotFound("no such path"));
        for target in ["/", "/function", "/healthz/", "/HEALTHZ", "*", "x", "http://h", "http://?/"]
        {
            check(&format!("GET {target}"), path);
        }
    }
}
