//! Who may call what: API keys and bearer tokens, checked before a request costs anything.
//!
//! Nothing here knows of HTTP/1 or of connections: a door collects [`Credentials`] from header fields,
//! asks its [`Doorkeeper`], and has a [`Client`] or an [`AuthReject`] that knows its own status and
//! challenge.
//!
//! The modules, in the order credentials meet them:
//! - `credentials`: what a request shows, out of its header fields
//! - `doorkeeper`: a thread's view of the current authority; sees a reload by looking at a counter
//! - `authority`: all that is known, checked and immutable; decides
//! - `key`, `keys_file`: API keys as text, and the file that lists their hashes
//! - `token`, `jwks`, `crypto`: JSON Web Tokens, the keys that sign them, and `ring` beneath
//! - `cache`: tokens that were verified already
//! - `client`, `scope`, `rate`: who it is, what it may call, how often
//! - `reject`: why it may not, as RFC 9110 and RFC 6750 say it
//! - `source`, `error`: which files all this is read from, and what can be wrong with them

mod authority;
mod cache;
mod client;
mod credentials;
mod crypto;
mod doorkeeper;
mod error;
mod jwks;
mod key;
mod keys_file;
mod rate;
mod reject;
mod scope;
mod source;
mod token;

pub use authority::{Authority, Moment};
pub use cache::TokenCache;
pub use client::{Client, Identity, Resource};
pub use credentials::{Credentials, is_credential};
pub use doorkeeper::{Authorities, Doorkeeper};
pub use error::AuthError;
pub use jwks::KeySet;
pub use key::{ApiKey, KeyHash, KeyId};
pub use keys_file::ApiKeys;
pub use reject::AuthReject;
pub use source::{AuthSource, JwtSource, SigningKeys};
