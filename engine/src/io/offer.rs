//! What gateways elsewhere are told of this shard's functions: which there are, and how busy they are.

use protocol::message::{FUNCTIONS_MAX, Load, LoadState, Repeat};

use super::engine::Engine;
use crate::core::FunctionId;

/// What has changed of the offer since whoever passes it on last looked.
#[derive(Debug, Default)]
pub(super) struct Offers {
    /// Counts the changes of where names lead.
    routes: u64,
    /// Functions whose load may be another now; `None`: nobody asks. No function is in it twice.
    stirred: Option<Vec<FunctionId>>,
}

/// A function that is called by its name.
#[derive(Clone, Copy, Debug)]
pub struct Offer<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its present version's place.
    pub id: FunctionId,
    /// Counts the deployments of the name.
    pub version: u32,
    /// How long a call of it may take, in ns.
    pub timeout_ns: u64,
    /// Whether a call that may have begun may be begun again elsewhere.
    pub repeat: Repeat,
    /// Calls that this shard takes of it at once.
    pub capacity: u32,
}

impl Offers {
    pub(super) fn reroute(&mut self) {
        self.routes += 1;
    }
}

impl Engine {
    /// Changes whenever a name leads elsewhere, or to nothing any more.
    #[must_use]
    pub fn routes(&self) -> u64 {
        self.offers.routes
    }

    /// The functions that have a name, in the order of their names; as many as may be announced.
    #[must_use]
    pub fn offers(&self) -> Vec<Offer<'_>> {
        let mut names: Vec<_> = self.names.iter().collect();
        names.sort_unstable();
        let offers = names.into_iter().filter_map(|(name, id)| {
            let function = &self.functions.get(id.index())?.function;
            let spec = &function.spec;
            Some(Offer {
                name: std::str::from_utf8(name).ok()?,
                id: *id,
                version: function.version,
                timeout_ns: u64::try_from(spec.timeout.as_nanos()).unwrap_or(u64::MAX),
                repeat: function.repeat,
                capacity: u32::from(spec.max_workers).saturating_add(spec.queue_max),
            })
        });
        offers.take(FUNCTIONS_MAX).collect()
    }

    /// How busy a function is, under the number by which it was announced.
    #[must_use]
    pub fn load(&self, function: FunctionId, number: u32) -> Load {
        let snapshot = self.core.snapshot(function);
        Load {
            number,
            state: if self.core.is_barred(function) {
                LoadState::Broken
            } else {
                LoadState::Serving
            },
            queued: snapshot.queued.saturating_add(snapshot.pipelined),
            running: snapshot.running.into(),
            waiting: snapshot.waiting.into(),
            room: self.core.room(function),
        }
    }

    /// From now on functions whose load may have changed are kept for [`Self::next_stirred`].
    pub fn watch_loads(&mut self) {
        self.offers.stirred.get_or_insert_default();
    }

    /// A function whose load may be another than when this last gave it.
    pub fn next_stirred(&mut self) -> Option<FunctionId> {
        let function = self.offers.stirred.as_mut()?.pop()?;
        if let Some(state) = self.functions.get_mut(function.index()) {
            state.stirred = false;
        }
        Some(function)
    }

    /// Whether [`Self::next_stirred`] has something.
    #[must_use]
    pub fn is_stirred(&self) -> bool {
        self.offers.stirred.as_ref().is_some_and(|stirred| !stirred.is_empty())
    }

    /// Something happened to a function.
    pub(super) fn stir(&mut self, function: FunctionId) {
        let Some(stirred) = &mut self.offers.stirred else { return };
        if let Some(state) = self.functions.get_mut(function.index())
            && !std::mem::replace(&mut state.stirred, true)
        {
            stirred.push(function);
        }
    }
}
