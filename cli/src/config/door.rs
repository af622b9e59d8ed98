//! What `[gateway]` says of answers at the door: where they are logged, and which web pages may read them.

use std::path::Path;

use gateway::access_log::Destination;
use gateway::{ORIGINS_MAX, is_origin};

use super::auth::beside;
use super::error::ConfigError;
use super::table::Value;

/// `access_log`: a file, or `"-"`.
pub(super) fn destination(value: &Value<'_>, file: &Path) -> Result<Destination, ConfigError> {
    match value.text("a path, or \"-\" for standard output")? {
        "-" => Ok(Destination::Output),
        _ => beside(value, file).map(Destination::File),
    }
}

/// `cors_origins`: origins as browsers write them, or `"*"`.
pub(super) fn origins(value: &Value<'_>) -> Result<Vec<String>, ConfigError> {
    const EXPECTED: &str = "an array of origins such as \"https://app.example\", or [\"*\"]";
    let origins = value.texts(EXPECTED)?;
    let fits = |(value, text): (Value<'_>, &str)| {
        if is_origin(text) { Ok(text.to_owned()) } else { Err(value.unexpected(EXPECTED)) }
    };
    if origins.len() > ORIGINS_MAX {
        return Err(value.unexpected(format_args!("at most {ORIGINS_MAX} origins")));
    }
    origins.into_iter().map(fits).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Overrides};
    use super::*;

    fn read(line: &str) -> Result<super::super::Gateway, String> {
        let file = Path::new("/etc/nightcore.toml");
        let config = Config::read(&format!("[gateway]\n{line}\n"), file, Overrides::default());
        config.map(|config| config.gateway).map_err(|error| error.to_string())
    }

    #[test]
    fn a_log_is_a_file_or_standard_output() {
        assert_eq!(read("").unwrap().access_log, None);
        let file = Destination::File("/etc/access.log".into());
        assert_eq!(read("access_log = \"access.log\"").unwrap().access_log, Some(file));
        assert_eq!(read("access_log = \"-\"").unwrap().access_log, Some(Destination::Output));
        let error = read("access_log = true").unwrap_err();
        assert!(
            error.ends_with("expected a path, or \"-\" for standard output, got true"),
            "{error}"
        );
    }

    #[test]
    fn origins_are_checked_one_by_one() {
        assert!(read("").unwrap().cors_origins.is_empty());
        let gateway = read("cors_origins = [\"https://a.example\", \"*\"]").unwrap();
        assert_eq!(gateway.cors_origins, ["https://a.example", "*"]);
        for (value, got) in [
            ("\"*\"", "\"*\""),
            ("[1]", "1"),
            ("[\"https://a.example\", \"https://a.example/\"]", "\"https://a.example/\""),
        ] {
            let error = read(&format!("cors_origins = {value}")).unwrap_err();
            let expected = "/etc/nightcore.toml:2: gateway.cors_origins: expected an array of origins \
                            such as \"https://app.example\", or [\"*\"], got ";
            assert_eq!(error, format!("{expected}{got}"));
        }
        let many = vec!["\"*\""; ORIGINS_MAX + 1].join(",");
        let error = read(&format!("cors_origins = [{many}]")).unwrap_err();
        assert!(error.contains("at most 64 origins"), "{error}");
    }
}
