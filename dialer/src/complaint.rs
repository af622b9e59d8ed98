//! Why an attempt failed, and what to do about it: told once, not with every attempt.

use std::cell::RefCell;
use std::io;

use protocol::{LinkError, ProtocolError};

/// What the gateway says to one whose proof is wrong.
const UNPROVEN: &str = "it could not prove that it has the key";

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttemptError {
    #[error("cannot be reached: {0}")]
    Unreachable(io::Error),
    #[error("cannot be reached: no answer within {0} ms")]
    Unanswered(u128),
    #[error("accepts connections, but did not finish the handshake within {0} ms")]
    Silent(u128),
    #[error("has no valid name for TLS: {0:?}")]
    ServerName(String),
    #[error("is on another host, and insecure = true is for this one")]
    Elsewhere,
    #[error("did not come to terms about TLS: {0}")]
    Tls(io::Error),
    #[error("did not come to terms: {0}")]
    Handshake(#[from] LinkError),
}

impl AttemptError {
    /// What to do, where somebody has to do something.
    fn advice(&self) -> Option<&'static str> {
        const KEYS: &str = "key_file of [engine.link] here and key_file of [gateway.engines] there must hold the same \
             key, and neither side may use anything else";
        const PORT: &str =
            "is it the port of [gateway.engines], and with the same kind of credentials?";
        match self {
            AttemptError::Unreachable(_) | AttemptError::Unanswered(_) => None,
            AttemptError::Silent(_) => Some(PORT),
            AttemptError::ServerName(_) => Some("server_name in [engine.link] can give one"),
            AttemptError::Elsewhere => Some("[engine.link] needs key_file or certificates"),
            AttemptError::Tls(error) => tls_advice(error),
            AttemptError::Handshake(error) => match error {
                LinkError::Protocol(ProtocolError::Unproven) => Some(KEYS),
                LinkError::Bye(reason) if reason == UNPROVEN => Some(KEYS),
                LinkError::Protocol(ProtocolError::Version { .. }) => {
                    Some("gateways and engines must be of versions that go together")
                }
                LinkError::Protocol(_) => Some(PORT),
                // After the client's last word, TLS 1.3 has the server's verdict come like this.
                LinkError::Io(error) => tls_advice(error),
                LinkError::Bye(_) | LinkError::Tls(_) | LinkError::Silent(_) => None,
            },
        }
    }
}

fn tls_advice(error: &io::Error) -> Option<&'static str> {
    match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::InvalidCertificate(_) => Some(
            "authorities in [engine.link] must have signed the gateway's certificate, for the name by which it is dialled \
             or for server_name",
        ),
        rustls::Error::AlertReceived(_) => Some(
            "authorities in the gateway's [gateway.engines] must have signed the certificate of [engine.link]",
        ),
        _ => None,
    }
}

/// What was told of one gateway.
#[derive(Debug, Default)]
pub(crate) struct Complaints {
    told: RefCell<Option<String>>,
}

impl Complaints {
    /// Logs an error unless the last one was the same. True: it was logged.
    pub(crate) fn tell(&self, gateway: &str, error: &AttemptError) -> bool {
        let text = error.to_string();
        if self.told.borrow().as_ref() == Some(&text) {
            tracing::debug!("gateway {gateway} {text}");
            return false;
        }
        match error.advice() {
            Some(advice) => tracing::warn!("gateway {gateway} {text} ({advice})"),
            None => tracing::warn!("gateway {gateway} {text}"),
        }
        *self.told.borrow_mut() = Some(text);
        true
    }

    /// It went well: the next error is news.
    pub(crate) fn clear(&self, gateway: &str) {
        if self.told.take().is_some() {
            tracing::info!("gateway {gateway} is reached");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advice(error: LinkError) -> &'static str {
        AttemptError::from(error).advice().unwrap_or("")
    }

    #[test]
    fn the_same_error_is_told_once_until_all_was_well() {
        let complaints = Complaints::default();
        let refused = || AttemptError::Unreachable(io::Error::from_raw_os_error(111));
        assert!(complaints.tell("gw", &refused()));
        assert!(!complaints.tell("gw", &refused()));
        assert!(complaints.tell("gw", &AttemptError::Silent(1)));
        assert!(complaints.tell("gw", &refused()));
        complaints.clear("gw");
        assert!(complaints.tell("gw", &refused()));
    }

    #[test]
    fn a_wrong_key_and_a_wrong_certificate_come_with_what_to_do() {
        assert!(advice(ProtocolError::Unproven.into()).contains("key_file"));
        assert!(advice(LinkError::Bye(ProtocolError::Unproven.to_string())).contains("key_file"));
        let unknown = rustls::CertificateError::UnknownIssuer;
        let tls = AttemptError::Tls(io::Error::other(rustls::Error::InvalidCertificate(unknown)));
        assert!(tls.advice().unwrap().contains("authorities in [engine.link]"));
        let alert = rustls::Error::AlertReceived(rustls::AlertDescription::UnknownCA);
        assert!(advice(io::Error::other(alert).into()).contains("[gateway.engines]"));
    }
}
