//! Which functions a key or token is good for.

/// Patterns of one key or token at most; every call may compare its function's name with all of them.
pub(super) const PATTERNS_MAX: usize = 256;
/// Longest pattern in bytes: the longest name, and a star.
const PATTERN_MAX: usize = 65;

/// Functions that may be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// All of them, and the gateway's own resources.
    All,
    /// Those that a pattern names.
    Functions(Vec<Pattern>),
}

/// A name, or the beginning of names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pattern {
    Name(Box<str>),
    /// Written with a star behind it.
    Prefix(Box<str>),
}

/// Why patterns are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ScopeError {
    #[error(
        "a function is named by letters, digits, \"_\", \".\" and \"-\", with \"*\" at its end only"
    )]
    Pattern,
    #[error("at most {PATTERNS_MAX} functions can be listed")]
    TooMany,
}

impl Scope {
    /// Of a list of patterns; without a list, of all.
    pub(super) fn of(patterns: Option<&[String]>) -> Result<Scope, ScopeError> {
        let Some(patterns) = patterns else { return Ok(Scope::All) };
        if patterns.len() > PATTERNS_MAX {
            return Err(ScopeError::TooMany);
        }
        patterns
            .iter()
            .map(|text| Pattern::parse(text))
            .collect::<Result<_, _>>()
            .map(Scope::Functions)
    }

    pub(super) fn permits(&self, function: &[u8]) -> bool {
        match self {
            Scope::All => true,
            Scope::Functions(patterns) => patterns.iter().any(|pattern| pattern.matches(function)),
        }
    }
}

impl Pattern {
    fn parse(text: &str) -> Result<Pattern, ScopeError> {
        let (name, is_prefix) = match text.strip_suffix('*') {
            Some(name) => (name, true),
            None => (text, false),
        };
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        let fits = text.len() <= PATTERN_MAX && !text.is_empty() && name.bytes().all(allowed);
        match (fits, is_prefix) {
            (false, _) => Err(ScopeError::Pattern),
            (true, true) => Ok(Pattern::Prefix(name.into())),
            (true, false) => Ok(Pattern::Name(name.into())),
        }
    }

    fn matches(&self, function: &[u8]) -> bool {
        match self {
            Pattern::Name(name) => name.as_bytes() == function,
            Pattern::Prefix(prefix) => function.starts_with(prefix.as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scope(patterns: &[&str]) -> Result<Scope, ScopeError> {
        let patterns: Vec<String> = patterns.iter().map(ToString::to_string).collect();
        Scope::of(Some(&patterns))
    }

    #[test]
    fn names_are_exact_and_a_star_leaves_the_end_open() {
        let scope = scope(&["a", "pay.*"]).unwrap();
        for (function, permitted) in [
            ("a", true),
            ("ab", false),
            ("", false),
            ("A", false),
            ("pay.", true),
            ("pay.in", true),
            ("pay", false),
            ("xpay.in", false),
        ] {
            assert_eq!(scope.permits(function.as_bytes()), permitted, "{function}");
        }
    }

    #[test]
    fn no_list_permits_all_and_an_empty_one_nothing() {
        assert!(Scope::of(None).unwrap().permits(b"f"));
        assert!(!scope(&[]).unwrap().permits(b"f"));
        assert!(scope(&["*"]).unwrap().permits(b"f"));
    }

    #[test]
    fn what_no_function_can_be_named_is_refused() {
        for pattern in ["", "a*b", "**", "a b", "ä", "a/b", &"a".repeat(66)] {
            assert_eq!(scope(&[pattern]), Err(ScopeError::Pattern), "{pattern}");
        }
        let many = vec!["a"; PATTERNS_MAX + 1];
        assert_eq!(scope(&many), Err(ScopeError::TooMany));
    }

    proptest! {
        #[test]
        fn a_prefix_permits_exactly_what_begins_with_it(
            prefix in "[a-z.]{0,3}",
            function in "[a-z.]{1,4}",
        ) {
            let scope = scope(&[&format!("{prefix}*")]).unwrap();
            prop_assert_eq!(scope.permits(function.as_bytes()), function.starts_with(&prefix));
        }
    }
}
