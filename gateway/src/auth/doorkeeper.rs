//! The current authority, and each thread's view of it. A request looks at one counter; only behind a
//! reload is a lock taken, once by each thread.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use reactor::clock::Nanos;

use super::authority::{Authority, Moment};
use super::cache::TokenCache;
use super::client::{Client, Resource};
use super::credentials::Credentials;
use super::error::AuthError;
use super::reject::AuthReject;
use super::source::AuthSource;

/// The authority of a process, to be read again on demand.
#[derive(Debug)]
pub struct Authorities {
    source: AuthSource,
    current: Mutex<Arc<Authority>>,
    /// Goes up with every change of `current`, behind it.
    version: AtomicU64,
}

impl Authorities {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// A file cannot be used.
    pub fn load(source: AuthSource) -> Result<Arc<Authorities>, AuthError> {
        let authority = Authority::load(&source, None)?;
        let current = Mutex::new(Arc::new(authority));
        Ok(Arc::new(Authorities { source, current, version: AtomicU64::new(0) }))
    }

    /// Reads the files again. Whoever is admitted from now on is so by what they say.
    ///
    /// # Errors
    /// A file cannot be used; all stays as it was.
    pub fn reload(&self) -> Result<Arc<Authority>, AuthError> {
        let next = Arc::new(Authority::load(&self.source, Some(&self.current()))?);
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&next);
        // SYNC(version): pairs with the load in Doorkeeper::refresh; who sees it finds `next`.
        self.version.fetch_add(1, Ordering::Release);
        Ok(next)
    }

    /// The authority as it was read last.
    #[must_use]
    pub fn current(&self) -> Arc<Authority> {
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One thread's door: the authority as that thread knows it, and the tokens that it has verified.
#[derive(Debug)]
pub struct Doorkeeper {
    authorities: Arc<Authorities>,
    version: u64,
    authority: Arc<Authority>,
    cache: TokenCache,
}

impl Doorkeeper {
    /// For the calling thread.
    #[must_use]
    pub fn new(authorities: Arc<Authorities>) -> Doorkeeper {
        let version = authorities.version.load(Ordering::Acquire);
        let authority = authorities.current();
        Doorkeeper { authorities, version, authority, cache: TokenCache::default() }
    }

    /// Who shows these credentials now.
    ///
    /// # Errors
    /// As [`Authority::authenticate`].
    pub fn authenticate(&mut self, credentials: Credentials<'_>) -> Result<Client, AuthReject> {
        self.refresh();
        self.authority.authenticate(&mut self.cache, unix_s(), credentials)
    }

    /// Lets a request in, or says why not. To be called once for each request.
    ///
    /// # Errors
    /// As [`Authority::admit`].
    pub fn admit(
        &mut self,
        now: Nanos,
        credentials: Credentials<'_>,
        resource: Resource<'_>,
    ) -> Result<Client, AuthReject> {
        self.refresh();
        let now = Moment { monotonic: now, unix_s: unix_s() };
        self.authority.admit(&mut self.cache, now, credentials, resource)
    }

    fn refresh(&mut self) {
        // SYNC(version): pairs with the addition in Authorities::reload.
        let version = self.authorities.version.load(Ordering::Acquire);
        if version != self.version {
            self.version = version;
            self.authority = self.authorities.current();
        }
    }
}

/// A clock before 1970 makes all tokens early rather than valid for ever.
fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::key::{ApiKey, KeyId};
    use super::*;

    const NOW: Nanos = Nanos(1 << 40);

    fn write_keys(file: &std::path::Path, keys: &[&ApiKey]) {
        let table = |key: &&ApiKey| {
            let (id, hash) = (key.id().as_str(), key.hash());
            format!("[[key]]\nid = \"{id}\"\nhash = \"{hash}\"\nclient = \"c\"\n")
        };
        fs::write(file, keys.iter().map(table).collect::<String>()).unwrap();
    }

    #[test]
    fn a_reload_takes_keys_away_and_a_bad_file_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("keys.toml");
        let [first, second] =
            ["a", "b"].map(|id| ApiKey::generate(KeyId::parse(id).unwrap()).unwrap());
        write_keys(&file, &[&first, &second]);
        let source = AuthSource { keys_file: Some(file.clone()), jwt: None };
        let authorities = Authorities::load(source).unwrap();
        let mut door = Doorkeeper::new(Arc::clone(&authorities));
        let mut admits = |key: &ApiKey| {
            let credentials = Credentials::Bearer(key.reveal().as_bytes());
            door.admit(NOW, credentials, Resource::Function(b"f")).map(|_| ())
        };
        assert_eq!((admits(&first), admits(&second)), (Ok(()), Ok(())));

        fs::write(&file, "[[key]]\nid = 7\n").unwrap();
        let error = authorities.reload().unwrap_err().to_string();
        assert!(error.contains("keys.toml: line ") && !error.contains('\n'), "{error}");
        assert_eq!((admits(&first), admits(&second)), (Ok(()), Ok(())));

        write_keys(&file, &[&second]);
        assert_eq!(authorities.reload().unwrap().key_count(), 1);
        assert_eq!((admits(&first), admits(&second)), (Err(AuthReject::Invalid), Ok(())));
    }

    #[test]
    fn files_that_are_not_there_or_too_large_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("keys.toml");
        let source = AuthSource { keys_file: Some(file.clone()), jwt: None };
        let error = Authorities::load(source.clone()).unwrap_err().to_string();
        assert!(error.contains("keys.toml: cannot be read: No such file"), "{error}");
        let large = fs::File::create(&file).unwrap();
        large.set_len((16 << 20) + 1).unwrap();
        let error = Authorities::load(source).unwrap_err().to_string();
        assert!(error.contains("it is larger than 16777216 bytes"), "{error}");
    }
}
