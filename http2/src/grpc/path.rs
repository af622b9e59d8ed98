//! `/<package.Service>/<Method>`: which function that is.

use http::HeaderMap;
use http::header::CONTENT_TYPE;

/// A method of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// With its package.
    pub service: &'a str,
    /// The function's suffix: the method behind its slash.
    pub suffix: &'a str,
}

/// Whether a request is one of gRPC, by its content type: `application/grpc`, alone or with a format
/// behind "+" or parameters behind ";". What only begins like it (`application/grpc-web`) is framed
/// otherwise.
#[must_use]
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).map(http::HeaderValue::as_bytes).unwrap_or_default();
    let kind = b"application/grpc";
    let begins = value.get(..kind.len()).is_some_and(|start| start.eq_ignore_ascii_case(kind));
    begins && matches!(value.get(kind.len()), None | Some(b'+' | b';' | b' '))
}

/// Splits a path; none where it is not of this form.
#[must_use]
pub fn parse(path: &str) -> Option<Target<'_>> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    let whole = !service.is_empty() && !method.is_empty() && !method.contains('/');
    let suffix = &path[1 + service.len()..];
    whole.then_some(Target { service, suffix })
}

impl<'a> Target<'a> {
    /// Names of the function, tried in this order: the whole service, then what stands behind its
    /// last dot.
    #[must_use]
    pub fn names(&self) -> [&'a str; 2] {
        [self.service, self.service.rsplit('.').next().unwrap_or(self.service)]
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn services_and_methods_are_told_apart() {
        let target = parse("/shop.v1.Cart/Add").unwrap();
        assert_eq!(target, Target { service: "shop.v1.Cart", suffix: "/Add" });
        assert_eq!(target.names(), ["shop.v1.Cart", "Cart"]);
        assert_eq!(parse("/Cart/Add").unwrap().names(), ["Cart", "Cart"]);
        for path in ["", "/", "/a", "/a/", "//b", "a/b", "/a/b/c", "/a//b"] {
            assert_eq!(parse(path), None, "{path}");
        }
    }

    #[test]
    fn only_grpc_is_grpc() {
        let is = |value: &str| {
            let value = HeaderValue::from_str(value).unwrap();
            is_grpc(&HeaderMap::from_iter([(CONTENT_TYPE, value)]))
        };
        for value in ["application/grpc", "application/grpc+proto", "Application/gRPC;x=y"] {
            assert!(is(value), "{value}");
        }
        for value in ["application/grpc-web", "application/grp", "text/plain", ""] {
            assert!(!is(value), "{value}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }
}
