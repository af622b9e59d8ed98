//! What a stranger shows at the door, and what an operator's files of keys hold. Nothing that is not signed
//! or hashed there opens anything; files are refused in one line that repeats no secret.

use std::sync::{Arc, LazyLock};

use gateway::auth::{
    ApiKey, ApiKeys, AuthReject, AuthSource, Authority, Credentials, JwtSource, KeyHash, KeySet,
    Moment, Resource, SigningKeys, TokenCache, is_credential,
};
use gateway::is_origin;
use reactor::clock::Nanos;

use crate::input::Input;

/// Longest refusal of a file, for one whose keys and values are short.
const REFUSAL_MAX: usize = 1024;

const SECRET: &[u8] = b"a secret of at least thirty-two bytes";
/// The one key that is known. Its hash is in the file, so nothing the fuzzer finds by comparison opens.
const KEYS: &str = "[[key]]\nid = \"a\"\nclient = \"c\"\nhash = \
    \"sha256:0000000000000000000000000000000000000000000000000000000000000000\"\n";

/// A door with a key and a shared secret, read from files that are gone by now.
static DOOR: LazyLock<Arc<Authority>> = LazyLock::new(|| {
    let directory = std::env::temp_dir().join(format!("nightcore-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let [keys, secret] = ["keys.toml", "secret"].map(|name| directory.join(name));
    std::fs::write(&keys, KEYS).expect("a file");
    std::fs::write(&secret, SECRET).expect("a file");
    let jwt = JwtSource {
        keys: SigningKeys::Secret(secret),
        issuer: None,
        audience: None,
        leeway: std::time::Duration::ZERO,
    };
    let source = AuthSource { keys_file: Some(keys), jwt: Some(jwt) };
    let authority = Authority::load(&source, None).expect("files of ours");
    std::fs::remove_dir_all(&directory).expect("it is ours");
    Arc::new(authority)
});

/// Takes the bytes for header fields, for a key and a token, and for each kind of file.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let kind = input.u8();
    let rest = input.rest();
    match kind % 4 {
        0 => fields(rest),
        1 => show(rest),
        2 => file(KeySet::parse(rest).map(|_| ()), rest.len()),
        _ => {
            let Ok(text) = str::from_utf8(rest) else { return };
            file(ApiKeys::parse(text, None).map(|keys| assert!(keys.count() < 65_537)), text.len());
            if is_origin(text) {
                assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "{text:?}");
            }
        }
    }
}

/// Lines of names and values.
fn fields(data: &[u8]) {
    let fields = data.split(|byte| *byte == b'\n').filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        Some((&line[..colon], &line[colon + 1..]))
    });
    let shown = fields.clone().filter(|(name, _)| is_credential(name)).count();
    match (shown, Credentials::collect(fields)) {
        (0, Credentials::None) | (1, Credentials::None) => {}
        (1, Credentials::Key(value) | Credentials::Bearer(value)) => {
            assert_eq!(value, value.trim_ascii());
            admit(Credentials::Bearer(value));
        }
        (2.., Credentials::Ambiguous) => {}
        (count, credentials) => panic!("{count} fields: {credentials:?}"),
    }
}

fn show(data: &[u8]) {
    admit(Credentials::Key(data));
    admit(Credentials::Bearer(data));
    if let Ok(text) = str::from_utf8(data) {
        if let Some(key) = ApiKey::parse(text) {
            assert_eq!(key.reveal(), text);
            assert!(!format!("{key:?}").contains(text), "a key shows in Debug");
        }
        if let Some(hash) = KeyHash::parse(text) {
            assert_eq!(hash.to_string(), text.to_ascii_lowercase());
        }
    }
}

/// A token would have to be signed with a secret that is compared as a whole, a key to be the preimage
/// of zeros.
fn admit(credentials: Credentials<'_>) {
    let now = Moment { monotonic: Nanos(1 << 40), unix_s: 1_800_000_000 };
    let mut cache = TokenCache::default();
    let admitted = DOOR.admit(&mut cache, now, credentials, Resource::Function(b"f"));
    let reject = admitted.map(|_| ()).expect_err("nobody was let in");
    assert!(
        matches!(reject, AuthReject::Invalid | AuthReject::Missing | AuthReject::Ambiguous),
        "{reject:?}"
    );
}

fn file(parsed: Result<(), impl std::fmt::Display>, size: usize) {
    if let Err(error) = parsed {
        let refusal = error.to_string();
        assert!(!refusal.chars().any(|char| matches!(char, '\n' | '\r')), "one line: {refusal:?}");
        assert!(refusal.len() <= REFUSAL_MAX + 8 * size, "{} bytes", refusal.len());
    }
}
