//! What the gateways of all shards have in common at the door: keys, web pages, the access log. Made
//! before the first shard, read again by a reload.

use std::sync::Arc;

use gateway::Cors;
use gateway::access_log::AccessLog;
use gateway::auth::Authorities;

use super::{UpError, system};
use crate::admin::Report;
use crate::config::{Config, is_exposed};

/// See the module's description. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Entrance {
    authorities: Option<Arc<Authorities>>,
    cors: Option<Arc<Cors>>,
    access_log: Option<AccessLog>,
}

impl Entrance {
    /// Reads the files of keys and opens the log. A process without a door needs neither.
    pub(super) fn open(config: &Config) -> Result<Entrance, UpError> {
        if !config.overrides.role.has_door() {
            return Ok(Entrance::default());
        }
        let authorities = config.auth.clone().map(Authorities::load).transpose()?;
        let origins = &config.gateway.cors_origins;
        let cors = (!origins.is_empty()).then(|| Arc::new(Cors::new(origins)));
        let access_log = config.gateway.access_log.clone().map(AccessLog::start).transpose();
        let access_log = system("the access log cannot be opened", access_log)?;
        let http2 = config.gateway.http2.as_ref().and_then(|http2| http2.listen);
        for listen in [Some(config.gateway.listen), http2].into_iter().flatten() {
            if authorities.is_some() && is_exposed(listen) {
                tracing::warn!("keys and tokens travel unencrypted to {listen}: offer TLS instead");
            }
        }
        Ok(Entrance { authorities, cors, access_log })
    }

    /// Enters it into the configuration of a shard's gateway.
    pub(super) fn enter(&self, config: gateway::Config) -> gateway::Config {
        let Entrance { authorities, cors, access_log } = self.clone();
        gateway::Config { auth: authorities, cors, access_log, ..config }
    }

    /// Reads keys again and opens the log again; says what became of it. What cannot be used stays as
    /// it was.
    pub(super) fn reload(&self) -> Vec<Report> {
        let mut reports = Vec::new();
        if let Some(authorities) = &self.authorities {
            let (done, message) = match authorities.reload() {
                Ok(authority) => (true, format!("read again, {} API keys", authority.key_count())),
                Err(error) => (false, format!("as before: {error}")),
            };
            reports.push(Report { function: "[auth]".to_owned(), done, message });
        }
        if let Some(Err(error)) = self.access_log.as_ref().map(AccessLog::reopen) {
            let message = format!("the access log is not opened again: {error}");
            reports.push(Report { function: "[gateway]".to_owned(), done: false, message });
        }
        reports
    }

    /// Writes the last lines. To be called when the shards have ended.
    pub(super) fn close(&self) {
        if let Some(access_log) = &self.access_log {
            access_log.finish();
            let dropped = access_log.dropped();
            if dropped > 0 {
                tracing::warn!("{dropped} lines are missing from the access log");
            }
        }
    }
}
