//! Why a link ends: what the gateway is told of it, and what the log is.

use protocol::{Link, LinkError};
use reactor::Reactor;

use super::peer::{Identity, Phase};

/// Reason of the BYE to a gateway for which too many bytes wait.
const SLOW: &str = "it does not take its answers";

/// Why a link ends.
pub(super) enum Why {
    /// The engine drains, and the last answer is out.
    Drained,
    /// Too many bytes wait for the gateway.
    Slow,
    /// Something is wrong with it.
    Error(LinkError),
}

impl Why {
    /// Closes a link for this reason.
    pub(super) fn close(&self, link: Link, reactor: &mut Reactor) {
        match self {
            Why::Drained => link.close(reactor, Some("drained")),
            Why::Slow => link.close(reactor, Some(SLOW)),
            Why::Error(LinkError::Protocol(error)) => {
                link.close(reactor, Some(&error.to_string()));
            }
            Why::Error(_) => link.close(reactor, None),
        }
    }

    /// Logs it. The end of a link to a gateway that drains, or that this engine wanted, is no news.
    pub(super) fn log(&self, identity: &Identity, phase: Phase, calls: usize) {
        let Identity { gateway, connection, .. } = identity;
        match self {
            Why::Drained => tracing::debug!("link {connection} to gateway {gateway} ends: drained"),
            Why::Slow => {
                tracing::warn!("link {connection} to gateway {gateway} is closed: {SLOW}");
            }
            Why::Error(LinkError::Bye(reason)) if phase == Phase::Draining => {
                tracing::debug!("link {connection} to gateway {gateway} ended: {reason}");
            }
            Why::Error(error) => tracing::warn!(
                "link {connection} to gateway {gateway} is lost, and {calls} calls of it: {error}"
            ),
        }
    }
}
