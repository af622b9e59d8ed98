//! `[auth]`: where the door's keys are, and the rule that a door which strangers reach is locked.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gateway::auth::{AuthSource, JwtSource, SigningKeys};

use super::error::{ConfigError, Place, Problem};
use super::table::Value;

/// Clocks that are further apart than this are to be set, not excused.
const LEEWAY_MAX: Duration = Duration::from_secs(300);
const LEEWAY_DEFAULT: Duration = Duration::from_secs(30);
/// Longest issuer or audience, in bytes.
const NAME_MAX: usize = 1024;

/// Reads the section. Relative paths begin in the directory of the configuration file.
pub(super) fn read_auth(
    section: Option<&Value<'_>>,
    file: &Path,
) -> Result<Option<AuthSource>, ConfigError> {
    let Some(section) = section else { return Ok(None) };
    let table = section.table(&["keys_file", "jwt"])?;
    let keys_file = table.get("keys_file").map(|value| beside(&value, file)).transpose()?;
    let jwt = table.get("jwt").map(|value| read_jwt(&value, file)).transpose()?;
    if keys_file.is_none() && jwt.is_none() {
        table.require("keys_file", "a file of API keys, or a table [auth.jwt]")?;
    }
    Ok(Some(AuthSource { keys_file, jwt }))
}

fn read_jwt(section: &Value<'_>, file: &Path) -> Result<JwtSource, ConfigError> {
    let table = section.table(&["secret_file", "jwks_file", "issuer", "audience", "leeway"])?;
    let keys = match (table.get("secret_file"), table.get("jwks_file")) {
        (Some(secret), None) => SigningKeys::Secret(beside(&secret, file)?),
        (None, Some(set)) => SigningKeys::KeySet(beside(&set, file)?),
        // A token could choose between them.
        (Some(_), Some(set)) => return Err(set.refused(Problem::TwoSigners)),
        (None, None) => {
            let secret = table.require("secret_file", "a file with a secret, or jwks_file")?;
            SigningKeys::Secret(beside(&secret, file)?)
        }
    };
    let (mut issuer, mut audience, mut leeway) = (None, None, LEEWAY_DEFAULT);
    table.read("issuer", &mut issuer, |value| name(value).map(Some))?;
    table.read("audience", &mut audience, |value| name(value).map(Some))?;
    table.read("leeway", &mut leeway, |value| value.duration(Duration::ZERO..=LEEWAY_MAX))?;
    Ok(JwtSource { keys, issuer, audience, leeway })
}

fn name(value: &Value<'_>) -> Result<String, ConfigError> {
    const EXPECTED: &str = "a text of 1 to 1024 bytes";
    let text = value.text(EXPECTED)?;
    let fits = (1..=NAME_MAX).contains(&text.len());
    if fits { Ok(text.to_owned()) } else { Err(value.unexpected(EXPECTED)) }
}

/// A path that is absolute or begins beside the configuration file. What is there is looked at when
/// it is read, at the start and at every reload.
pub(super) fn beside(value: &Value<'_>, file: &Path) -> Result<PathBuf, ConfigError> {
    const EXPECTED: &str = "a path";
    let text = value.text(EXPECTED)?;
    if text.is_empty() || text.contains('\0') {
        return Err(value.unexpected(EXPECTED));
    }
    let joined = file.parent().unwrap_or(Path::new("")).join(text);
    Ok(std::path::absolute(&joined).unwrap_or(joined))
}

/// What stands between strangers and the functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lock {
    /// Nothing.
    Open,
    /// Nothing, as `insecure = true` says.
    Insecure,
    /// `[auth]`.
    Keys,
}

impl Lock {
    /// The same, where it is said that nothing need stand there.
    pub(super) fn or_insecure(self) -> Lock {
        if self == Lock::Open { Lock::Insecure } else { self }
    }
}

/// Refuses an address that others reach where nothing stands between them and the functions: whoever
/// reaches the port could run every one.
pub(super) fn refuse_exposed(
    listen: SocketAddr,
    place: Place,
    lock: Lock,
) -> Result<(), ConfigError> {
    if lock != Lock::Open || !is_exposed(listen) {
        return Ok(());
    }
    Err(ConfigError::Refused { place, problem: Problem::Exposed(listen) })
}

/// Whether other hosts may reach an address.
#[must_use]
pub fn is_exposed(address: SocketAddr) -> bool {
    !address.ip().to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Overrides};
    use super::*;

    fn read(text: &str) -> Result<Option<AuthSource>, String> {
        let file = Path::new("/etc/nightcore/nightcore.toml");
        let config = Config::read(text, file, Overrides::default());
        config.map(|config| config.auth).map_err(|error| error.to_string())
    }

    #[test]
    fn paths_begin_beside_the_file_and_the_rest_has_defaults() {
        assert_eq!(read("").unwrap(), None);
        let auth = read("[auth]\nkeys_file = \"keys.toml\"\n").unwrap().unwrap();
        assert_eq!(auth.keys_file, Some("/etc/nightcore/keys.toml".into()));
        assert_eq!(auth.jwt, None);
        let text = "[auth.jwt]\njwks_file = \"/srv/jwks.json\"\nissuer = \"i\"\naudience = \"a\"\n";
        let jwt = JwtSource {
            keys: SigningKeys::KeySet("/srv/jwks.json".into()),
            issuer: Some("i".into()),
            audience: Some("a".into()),
            leeway: Duration::from_secs(30),
        };
        assert_eq!(read(text).unwrap().unwrap().jwt, Some(jwt));
        let text = "[auth.jwt]\nsecret_file = \"s\"\nleeway = \"0s\"\n";
        let jwt = read(text).unwrap().unwrap().jwt.unwrap();
        assert_eq!(jwt.keys, SigningKeys::Secret("/etc/nightcore/s".into()));
        assert_eq!(jwt.leeway, Duration::ZERO);
    }

    #[test]
    fn a_section_that_locks_nothing_or_twice_is_refused() {
        for (text, expected) in [
            (
                "[auth]\n",
                "1: auth.keys_file: expected a file of API keys, or a table [auth.jwt], but the \
                 key is missing",
            ),
            (
                "[auth]\n[auth.jwt]\n",
                "2: auth.jwt.secret_file: expected a file with a secret, or jwks_file, but the key \
                 is missing",
            ),
            (
                "[auth.jwt]\nsecret_file = \"s\"\njwks_file = \"j\"\n",
                "3: auth.jwt.jwks_file: expected either secret_file or jwks_file, not both",
            ),
            ("[auth]\nkeys_file = \"\"\n", "2: auth.keys_file: expected a path, got \"\""),
            ("[auth]\nkeys = \"k\"\n", "2: auth.keys: unknown key, expected one of keys_file, jwt"),
            (
                "[auth.jwt]\nsecret_file = \"s\"\nleeway = \"6m\"\n",
                "3: auth.jwt.leeway: expected a duration from 0ms to 5m, got \"6m\"",
            ),
            (
                "[auth.jwt]\nsecret_file = \"s\"\nissuer = \"\"\n",
                "3: auth.jwt.issuer: expected a text of 1 to 1024 bytes, got \"\"",
            ),
        ] {
            let file = "/etc/nightcore/nightcore.toml";
            assert_eq!(read(text), Err(format!("{file}:{expected}")), "{text}");
        }
    }

    #[test]
    fn an_address_that_others_reach_is_refused_unless_called_insecure() {
        let reason = "expected a loopback address, because calls are not authenticated, got";
        let remedy = "(keys in [auth], or insecure = true in [gateway], permit it)";
        let place = "/etc/nightcore/nightcore.toml:2: gateway.listen";
        assert_eq!(
            read("[gateway]\nlisten = \"0.0.0.0:80\"").unwrap_err(),
            format!("{place}: {reason} \"0.0.0.0:80\" {remedy}")
        );
        let listen = Some("[::]:80".parse().unwrap());
        let overrides = Overrides { listen, ..Overrides::default() };
        let read_with = |text| Config::read(text, Path::new("nightcore.toml"), overrides);
        let message = read_with("").unwrap_err().to_string();
        assert_eq!(message, format!("--listen: {reason} \"[::]:80\" {remedy}"));
        assert!(read_with("[gateway]\ninsecure = true").is_ok());
        for listen in ["127.0.0.2:0", "[::1]:0", "[::ffff:127.0.0.1]:0"] {
            assert!(read(&format!("[gateway]\nlisten = \"{listen}\"")).is_ok(), "{listen}");
        }
    }

    #[test]
    fn keys_permit_an_address_that_others_reach() {
        let exposed = "[gateway]\nlisten = \"0.0.0.0:80\"\n";
        assert!(read(exposed).unwrap_err().contains("[auth]"));
        assert!(read(&format!("{exposed}[auth]\nkeys_file = \"k\"\n")).is_ok());
        assert!(read(&format!("{exposed}insecure = true\n")).is_ok());
    }
}
