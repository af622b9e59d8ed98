//! What a request shows at the door. One credential, in one place: two of them are refused, as a proxy
//! in front of this gateway may have looked at the other.

/// Longest key or token that is looked at, in bytes. Tokens of identity providers stay below 4 KiB.
pub(super) const CREDENTIAL_MAX: usize = 8 * 1024;

/// What a request shows, borrowed from its header fields. Its `Debug` does not show it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Credentials<'a> {
    /// Nothing that is understood here.
    None,
    /// The value of `X-Api-Key`.
    Key(&'a [u8]),
    /// What stands behind `Authorization: Bearer`: a key or a token.
    Bearer(&'a [u8]),
    /// More than one.
    Ambiguous,
}

impl std::fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Credentials::None => "None",
            Credentials::Key(_) => "Key(..)",
            Credentials::Bearer(_) => "Bearer(..)",
            Credentials::Ambiguous => "Ambiguous",
        })
    }
}

impl<'a> Credentials<'a> {
    /// Finds them among header fields, whose names may be of any case.
    pub fn collect(fields: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Credentials<'a> {
        let mut found = None;
        for (name, value) in fields {
            if !is_credential(name) {
                continue;
            }
            let credential = match name.len() {
                X_API_KEY_SIZE => Credentials::Key(value.trim_ascii()),
                _ => bearer(value),
            };
            if found.replace(credential).is_some() {
                return Credentials::Ambiguous;
            }
        }
        found.unwrap_or(Credentials::None)
    }
}

const X_API_KEY_SIZE: usize = b"x-api-key".len();

/// Whether a field may carry a key or token. No function gets to see such a field while the door is
/// locked.
#[must_use]
pub fn is_credential(name: &[u8]) -> bool {
    match name.len() {
        X_API_KEY_SIZE => name.eq_ignore_ascii_case(b"x-api-key"),
        13 => name.eq_ignore_ascii_case(b"authorization"),
        _ => false,
    }
}

/// `Bearer`, spaces, a token without spaces (RFC 6750, 2.1). Another scheme is not spoken here.
fn bearer(value: &[u8]) -> Credentials<'_> {
    const SCHEME: &[u8] = b"bearer";
    let value = value.trim_ascii();
    let Some((scheme, rest)) = value.split_at_checked(SCHEME.len()) else {
        return Credentials::None;
    };
    if !scheme.eq_ignore_ascii_case(SCHEME) || rest.first() != Some(&b' ') {
        return Credentials::None;
    }
    Credentials::Bearer(rest.trim_ascii_start())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn collect<'a>(fields: &[(&'a str, &'a str)]) -> Credentials<'a> {
        Credentials::collect(fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())))
    }

    #[test]
    fn a_key_or_token_is_found_in_either_field() {
        let other = ("Accept", "x");
        assert_eq!(collect(&[other, ("X-API-KEY", " k ")]), Credentials::Key(b"k"));
        assert_eq!(collect(&[("authorization", "Bearer t"), other]), Credentials::Bearer(b"t"));
        assert_eq!(collect(&[("Authorization", "bEARER   t.u.v ")]), Credentials::Bearer(b"t.u.v"));
    }

    #[test]
    fn other_schemes_and_half_of_one_are_nothing() {
        for value in ["", "Basic dTpw", "Bearer", "Bearer\tt", "Bearert", "Bear", "Digest Bearer x"]
        {
            assert_eq!(collect(&[("Authorization", value)]), Credentials::None, "{value}");
        }
        assert_eq!(collect(&[("Authorisation", "Bearer t")]), Credentials::None);
        assert_eq!(collect(&[]), Credentials::None);
    }

    #[test]
    fn two_of_them_are_ambiguous_even_if_they_are_the_same() {
        let (key, bearer, basic) =
            (("X-Api-Key", "k"), ("Authorization", "Bearer k"), ("Authorization", "Basic k"));
        for pair in [[key, key], [key, bearer], [bearer, bearer], [basic, key], [bearer, basic]] {
            assert_eq!(collect(&pair), Credentials::Ambiguous, "{pair:?}");
        }
    }

    #[test]
    fn what_is_shown_does_not_show_in_debug() {
        assert!(!format!("{:?}", Credentials::Key(b"secret")).contains("secret"));
        assert!(!format!("{:?}", Credentials::Bearer(b"secret")).contains("secret"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_something(value in prop::collection::vec(any::<u8>(), 0..64)) {
            let field = [(&b"authorization"[..], value.as_slice())];
            match Credentials::collect(field) {
                Credentials::None => {}
                Credentials::Bearer(token) => prop_assert!(value.ends_with(token.trim_ascii())
                    || value.trim_ascii().ends_with(token)),
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }
}
