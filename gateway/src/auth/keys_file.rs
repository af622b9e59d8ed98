//! The file of API keys: hashes, never keys, and what each is good for.
//!
//! ```toml
//! [[key]]
//! id = "shop-1"                 # as in the key itself
//! hash = "sha256:..."           # of the whole key; `nightcore key hash` prints it
//! client = "shop"               # whose it is; a client may have several keys
//! functions = ["cart", "pay.*"] # absent: all, and the gateway's own resources
//! rate = 100                    # calls a second over all shards; absent: no limit
//! burst = 200                   # absent: as many as in a second
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;

use super::client::{Client, Identity};
use super::error::{ContentError, one_line};
use super::key::{KeyHash, KeyId};
use super::rate::{BURST_MAX, Bucket, RATE_MAX, Rate};
use super::scope::Scope;

/// Largest file in bytes.
pub(super) const FILE_MAX: u64 = 16 << 20;
/// Most keys: a table of some tens of megabytes.
const KEYS_MAX: usize = 65_536;
/// Longest name of a client, in bytes.
const CLIENT_MAX: usize = 128;

/// The keys of a file by their id.
#[derive(Debug, Default)]
pub struct ApiKeys {
    keys: HashMap<Box<str>, Entry>,
}

#[derive(Debug)]
struct Entry {
    hash: KeyHash,
    client: Client,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    key: Vec<Table>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    id: String,
    hash: String,
    client: String,
    functions: Option<Vec<String>>,
    rate: Option<u32>,
    burst: Option<u32>,
}

impl ApiKeys {
    /// Reads the text of a file. A key that is in `former` with the same rate goes on with what it has
    /// spent there: to read the file again grants no burst.
    ///
    /// # Errors
    /// What is wrong with it; no hash is repeated.
    pub fn parse(text: &str, former: Option<&ApiKeys>) -> Result<ApiKeys, ContentError> {
        let document: Document = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start).min(text.len());
            let before = text.as_bytes()[..at].iter();
            ContentError::Syntax {
                line: before.filter(|byte| **byte == b'\n').count() + 1,
                message: one_line(error.message()),
            }
        })?;
        if document.key.len() > KEYS_MAX {
            return Err(ContentError::Whole(format!("there are more than {KEYS_MAX} keys")));
        }
        let mut keys = HashMap::with_capacity(document.key.len());
        for (index, table) in document.key.into_iter().enumerate() {
            let refused = |message: String| ContentError::Key { index: index + 1, message };
            let id = table.id.clone();
            let former = former.and_then(|former| former.keys.get(id.as_str()));
            let entry = table.check(former).map_err(refused)?;
            if keys.insert(id.into_boxed_str(), entry).is_some() {
                return Err(refused("another key has this id".to_owned()));
            }
        }
        Ok(ApiKeys { keys })
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.keys.len()
    }

    /// Whose key this is. One hash is made and compared whether the id is known or not.
    pub(super) fn find(&self, id: &str, key: &[u8]) -> Option<&Client> {
        let entry = self.keys.get(id);
        let known = entry.map_or(&KeyHash::NONE, |entry| &entry.hash);
        let is_same = known.is_same(&KeyHash::of(key));
        entry.filter(|_| is_same).map(|entry| &entry.client)
    }
}

impl Table {
    fn check(self, former: Option<&Entry>) -> Result<Entry, String> {
        let id = KeyId::parse(&self.id)
            .ok_or("an id has 1 to 32 letters, digits and \"-\"".to_owned())?;
        let hash = KeyHash::parse(&self.hash)
            .ok_or("a hash is \"sha256:\" and 64 hexadecimal digits".to_owned())?;
        let is_text = !self.client.is_empty() && !self.client.contains(char::is_control);
        if !is_text || self.client.len() > CLIENT_MAX {
            return Err(format!("a client has a name of 1 to {CLIENT_MAX} bytes"));
        }
        let scope = Scope::of(self.functions.as_deref()).map_err(|error| error.to_string())?;
        let bucket = match (self.rate, self.burst) {
            (None, None) => None,
            (None, Some(_)) => return Err("a burst is of a rate, which is missing".to_owned()),
            (Some(rate), burst) => Some(bucket(rate, burst.unwrap_or(rate), former)?),
        };
        let identity =
            Identity::Key { id: id.as_str().into(), client: self.client.into_boxed_str() };
        Ok(Entry { hash, client: Client::new(identity, scope, bucket) })
    }
}

fn bucket(rate: u32, burst: u32, former: Option<&Entry>) -> Result<Arc<Bucket>, String> {
    if !(1..=RATE_MAX).contains(&rate) {
        return Err(format!("a rate is an integer from 1 to {RATE_MAX}"));
    }
    if !(1..=BURST_MAX).contains(&burst) {
        return Err(format!("a burst is an integer from 1 to {BURST_MAX}"));
    }
    let rate = Rate::new(rate, burst);
    let kept = former.and_then(|entry| entry.client.bucket()).filter(|kept| kept.rate == rate);
    Ok(kept.map_or_else(|| Arc::new(Bucket::new(rate)), Arc::clone))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use reactor::clock::Nanos;

    use super::super::client::Resource;
    use super::super::key::ApiKey;
    use super::super::reject::AuthReject;
    use super::*;

    fn key(id: &str) -> ApiKey {
        ApiKey::generate(KeyId::parse(id).unwrap()).unwrap()
    }

    fn table(key: &ApiKey, rest: &str) -> String {
        let (id, hash) = (key.id().as_str(), key.hash());
        format!("[[key]]\nid = \"{id}\"\nhash = \"{hash}\"\nclient = \"shop\"\n{rest}\n")
    }

    fn find<'a>(keys: &'a ApiKeys, key: &ApiKey) -> Option<&'a Client> {
        keys.find(key.id().as_str(), key.reveal().as_bytes())
    }

    #[test]
    fn a_client_has_several_keys_and_each_is_found_by_itself_alone() {
        let (first, second, stranger) = (key("a"), key("b"), key("a"));
        let text = table(&first, "functions = [\"f\"]") + &table(&second, "");
        let keys = ApiKeys::parse(&text, None).unwrap();
        assert_eq!(keys.count(), 2);
        let found = find(&keys, &first).unwrap();
        assert_eq!(found.identity(), &Identity::Key { id: "a".into(), client: "shop".into() });
        assert_eq!(found.authorize(Resource::Function(b"g")), Err(AuthReject::Forbidden));
        assert!(find(&keys, &second).unwrap().authorize(Resource::Own).is_ok());
        assert!(find(&keys, &stranger).is_none(), "the id is known, the key is not");
        assert!(keys.find("b", first.reveal().as_bytes()).is_none());
        assert!(keys.find("c", first.reveal().as_bytes()).is_none());
    }

    #[test]
    fn reading_the_file_again_grants_no_burst_but_a_new_rate_does() {
        let key = key("a");
        let text = table(&key, "rate = 1\nburst = 2");
        let now = Nanos(1 << 40);
        let first = ApiKeys::parse(&text, None).unwrap();
        let spend = |keys: &ApiKeys| find(keys, &key).unwrap().spend(now).is_ok();
        assert!(spend(&first) && spend(&first) && !spend(&first));
        let again = ApiKeys::parse(&text, Some(&first)).unwrap();
        assert!(!spend(&again));
        let faster = ApiKeys::parse(&text.replace("rate = 1", "rate = 5"), Some(&again)).unwrap();
        assert!(spend(&faster));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place_and_without_the_hash() {
        let (good, hash) = (key("a"), key("a").hash().to_string());
        let text = table(&good, "");
        let key_is = |message: &str| (1, message.to_owned());
        for (wrong, (index, message)) in [
            (
                text.replace("\"a\"", "\"a_b\""),
                key_is("an id has 1 to 32 letters, digits and \"-\""),
            ),
            (
                text.replace("sha256:", "sha1:"),
                key_is("a hash is \"sha256:\" and 64 hexadecimal digits"),
            ),
            (text.replace("\"shop\"", "\"\""), key_is("a client has a name of 1 to 128 bytes")),
            (table(&good, "rate = 0"), key_is("a rate is an integer from 1 to 1000000")),
            (
                table(&good, "rate = 1\nburst = 0"),
                key_is("a burst is an integer from 1 to 1000000"),
            ),
            (table(&good, "burst = 1"), key_is("a burst is of a rate, which is missing")),
            (format!("{text}{text}"), (2, "another key has this id".to_owned())),
        ] {
            let error = ApiKeys::parse(&wrong, None).unwrap_err();
            assert_eq!(error, ContentError::Key { index, message });
            assert!(!error.to_string().contains(&hash[7..]));
        }
        let error = ApiKeys::parse(&format!("{text}scope = 1\n"), None).unwrap_err();
        assert!(matches!(&error, ContentError::Syntax { line: 6, .. }), "{error}");
        let error = ApiKeys::parse("[[key]]\nid = \"a\"\n", None).unwrap_err();
        assert!(error.to_string().starts_with("line 1: missing field `hash`"), "{error}");
        assert_eq!(ApiKeys::parse("", None).unwrap().count(), 0);
    }

    proptest! {
        #[test]
        fn any_text_is_a_file_of_keys_or_refused_in_one_line(text in "[ -~\n]{0,200}") {
            if let Err(error) = ApiKeys::parse(&text, None) {
                prop_assert!(!error.to_string().contains('\n'));
            }
        }
    }
}
