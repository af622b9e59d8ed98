//! All the doors of a process: their addresses are taken early, and they are opened together, late.

use std::net::SocketAddr;
use std::sync::Arc;

use gateway::Door;
use reactor::mailbox::Post;

use super::doorman::{self, Doorman};
use super::entrance::Entrance;
use super::listener::Listener;
use super::mail::ShardMail;
use super::rebalance::Balance;
use super::tls::Identities;
use super::{UpError, http2, system};
use crate::config::Config;

/// Bound, and closed.
pub(super) struct Doors {
    public: Option<Listener>,
    http2: Option<http2::Plan>,
    doorman: doorman::Plan,
}

/// Open, those that have a thread of their own.
pub(super) struct OpenDoors {
    http2: Option<::http2::Door>,
    doorman: Option<Doorman>,
}

/// Where clients and engines come in.
pub(super) struct Addresses {
    pub(super) public: Option<SocketAddr>,
    pub(super) http2: http2::Addresses,
    pub(super) strangers: doorman::Addresses,
}

impl Doors {
    /// Takes every address that the process has a door at.
    pub(super) fn bind(
        config: &Config,
        identities: &Identities,
        entrance: &Entrance,
    ) -> Result<Doors, UpError> {
        let taken = |(address, error)| UpError::Listen { address, error };
        let (mut public, mut http2) = (None, None);
        if config.overrides.role.has_door() {
            let address = config.gateway.listen;
            public = Some(Listener::bind(address).map_err(|error| taken((address, error)))?);
            http2 = http2::Plan::bind(config, identities, entrance).map_err(taken)?;
        }
        let doorman = doorman::Plan::bind(config, identities).map_err(taken)?;
        Ok(Doors { public, http2, doorman })
    }

    /// Where they are.
    pub(super) fn addresses(&self) -> Addresses {
        Addresses {
            public: self.public.as_ref().map(Listener::address),
            http2: self.http2.as_ref().map(http2::Plan::addresses).unwrap_or_default(),
            strangers: self.doorman.addresses(),
        }
    }

    /// What the shards have of them.
    pub(super) fn annexes(&self) -> (http2::Annex, doorman::Annex) {
        (http2::Plan::annex(self.http2.as_ref()), self.doorman.annex())
    }

    /// Lets everybody in.
    pub(super) fn open(
        self,
        shards: &[Post<ShardMail>],
        balance: &Arc<Balance>,
    ) -> Result<OpenDoors, UpError> {
        let Doors { public, http2, doorman } = self;
        let public = public.map(|listener| {
            let address = listener.address();
            listener.listen().map_err(|error| UpError::Listen { address, error })
        });
        let public = public.transpose()?;
        let http2 = http2.map(|plan| plan.open(shards.to_vec())).transpose();
        let http2 = system("no door for HTTP/2", http2)?;
        let doorman = system("no doorman", doorman.open(shards, balance))?;
        if let (Some(acceptor), Some(listener)) = (shards.first(), public) {
            acceptor.send(ShardMail::Serve { listener, door: Door::Public });
        }
        Ok(OpenDoors { http2, doorman })
    }
}

impl OpenDoors {
    /// Ends what is still going on at them.
    pub(super) fn close(self) {
        if let Some(door) = self.http2 {
            door.stop();
        }
        drop(self.doorman);
    }
}
