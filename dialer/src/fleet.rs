//! The gateways that there are, as names come to lead to them and cease to.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tokio::time::sleep;

use crate::keeper::Gateway;
use crate::name::{Address, Name};
use crate::resolve::{Place, Resolver};
use crate::shared::Shared;

/// Time between two looks at what a name stands for.
const RESOLVE_EVERY: Duration = Duration::from_secs(5);
/// Gateways at most, of all names together.
const GATEWAYS_MAX: usize = 256;
/// Answers that wait to be looked at: as many as names can give before the next look.
const FOUND_MAX: usize = 16;

/// What a name stands for: its place in the configuration, and where it leads.
pub(crate) type Found = (usize, Vec<Place>);

/// See the module's description.
pub(crate) struct Fleet {
    shared: Rc<Shared>,
    gateways: HashMap<Address, Rc<Gateway>>,
    /// By the names' places in the configuration, so that the first ones win where there are too many.
    found: BTreeMap<usize, Vec<Place>>,
}

impl Fleet {
    pub(crate) fn new(shared: Rc<Shared>) -> Fleet {
        Fleet { shared, gateways: HashMap::new(), found: BTreeMap::new() }
    }

    /// Begins to look names up; what they stand for is to be passed to [`Self::update`].
    pub(crate) fn watch(&self) -> mpsc::Receiver<Found> {
        let (sender, found) = mpsc::channel(FOUND_MAX);
        let settings = &self.shared.settings;
        let resolver = settings.resolver.map_or(Resolver::System, Resolver::Server);
        for (index, name) in settings.gateways.iter().enumerate() {
            spawn_local(look(index, name.clone(), resolver.clone(), sender.clone()));
        }
        found
    }

    /// A name stands for these gateways now.
    pub(crate) fn update(&mut self, (index, places): Found) {
        self.found.insert(index, places);
        let mut wanted = HashSet::new();
        for place in self.found.values().flatten() {
            if wanted.len() == GATEWAYS_MAX {
                tracing::warn!(
                    "there are more than {GATEWAYS_MAX} gateways: others are not dialled"
                );
                break;
            }
            wanted.insert(place.address.clone());
            let gateways = &mut self.gateways;
            let make = || Gateway::new(place.clone());
            gateways.entry(place.address.clone()).or_insert_with(make).want(&self.shared);
        }
        for (address, gateway) in &self.gateways {
            if !wanted.contains(address) {
                gateway.forget();
            }
        }
        self.gateways.retain(|_, gateway| !gateway.is_gone());
    }
}

/// Looks a name up for ever; an address or a path once.
async fn look(index: usize, name: Name, resolver: Resolver, found: mpsc::Sender<Found>) {
    let mut failed = false;
    loop {
        match resolver.resolve(&name).await {
            Ok(places) => {
                if places.is_empty() && !failed {
                    tracing::warn!("gateway {name}: there are no such addresses");
                }
                failed = places.is_empty();
                if found.send((index, places)).await.is_err() {
                    return;
                }
            }
            // What it stood for before is as good as anything.
            Err(error) if failed => tracing::debug!("gateway {name}: {error}"),
            Err(error) => {
                tracing::warn!("gateway {name} cannot be looked up: {error}");
                failed = true;
            }
        }
        if matches!(name, Name::Address(_) | Name::Unix(_)) {
            return;
        }
        sleep(RESOLVE_EVERY).await;
    }
}
