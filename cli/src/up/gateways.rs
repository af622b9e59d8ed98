//! The dialer of this process, if the configuration names gateways on other hosts: its links go to the
//! shards, and what the shards say of them goes back.

use std::sync::{Arc, OnceLock};

use dialer::{Dialer, Line, Settings, client_config};
use engine::uplink::Notice;
use reactor::mailbox::Post;

use super::mail::{Dialled, ShardMail};
use crate::config::{Config, CredentialError, Link, Role, Trust, authorities, shared_key};

/// How shards reach the dialer, which comes after them.
#[derive(Clone, Debug, Default)]
pub(super) struct Wire(Arc<OnceLock<Line>>);

/// Why there is no dialer.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("[engine.link]: {0}")]
    Credentials(#[from] CredentialError),
    #[error("[engine.link]: {0}")]
    Tls(#[from] rustls::Error),
    #[error("no thread for links to gateways: {0}")]
    System(#[from] std::io::Error),
}

impl Wire {
    /// Passes on what became of a link.
    pub(super) fn tell(&self, notice: Notice) {
        if let Some(line) = self.0.get() {
            line.tell(notice);
        }
    }

    /// No further link is wanted.
    pub(super) fn stop(&self) {
        if let Some(line) = self.0.get() {
            line.stop();
        }
    }
}

/// Starts to dial, where functions run and gateways are named.
pub(super) fn start(
    config: &Config,
    mail: &[Post<ShardMail>],
    wire: &Wire,
) -> Result<Option<Dialer>, DialError> {
    let link = config.engine.link.as_ref().filter(|_| config.overrides.role.has_functions());
    let Some(link) = link else {
        if config.overrides.role == Role::Engine {
            tracing::warn!("nobody will call: [engine] gateways is not there");
        }
        return Ok(None);
    };
    let count = u16::try_from(mail.len()).unwrap_or(u16::MAX);
    let settings = Settings {
        gateways: link.gateways.clone(),
        resolver: link.resolver,
        trust: trust(link)?,
        node: link.node.clone(),
        shards: count,
        cores: count,
    };
    let mail = mail.to_vec();
    let deliver = move |dialled: dialer::Dialled| {
        let dialer::Dialled { shard, established, identity } = dialled;
        if let Some(post) = mail.get(usize::from(shard)) {
            post.send(ShardMail::Gateway(Box::new(Dialled { established, identity })));
        }
    };
    let dialer = Dialer::start(settings, deliver)?;
    // Set once: there is one dialer in a process.
    let _ = wire.0.set(dialer.line());
    Ok(Some(dialer))
}

/// Reads the files, which were good when the configuration was read.
fn trust(link: &Link) -> Result<dialer::Trust, DialError> {
    Ok(match &link.trust {
        Trust::SharedKey { file } => dialer::Trust::SharedKey(shared_key(file)?),
        Trust::Certificates { own, authorities: roots } => dialer::Trust::Certificates {
            client: client_config(authorities(roots)?, own.load()?)?,
            server_name: link.server_name.clone(),
        },
        Trust::Insecure => dialer::Trust::Insecure,
    })
}
