//! What all connections of an engine have in common.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use engine::uplink::Notice;
use rustls::crypto::{SecureRandom, ring};
use tokio::sync::{Notify, mpsc};

use crate::name::Address;
use crate::{Dialled, Settings};

/// See the module's description. Used by the dialer's thread alone.
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    /// Names this process.
    pub(crate) instance: u64,
    random: &'static dyn SecureRandom,
    epoch: Cell<u64>,
    deliver: RefCell<Box<dyn FnMut(Dialled)>>,
    /// Those who wait for news of a link, by its epoch.
    links: RefCell<HashMap<u64, mpsc::UnboundedSender<Notice>>>,
    /// The address by which each gateway process is reached, and how many links it has.
    owners: RefCell<HashMap<u64, (Address, u32)>>,
    /// Rings when a gateway process has no link any more.
    pub(crate) released: Notify,
}

impl Shared {
    pub(crate) fn new(settings: Settings, deliver: Box<dyn FnMut(Dialled)>) -> Shared {
        let random = ring::default_provider().secure_random;
        let mut shared = Shared {
            settings,
            instance: 0,
            random,
            epoch: Cell::new(0),
            deliver: RefCell::new(deliver),
            links: RefCell::default(),
            owners: RefCell::default(),
            released: Notify::new(),
        };
        shared.instance = u64::from_le_bytes(shared.random());
        shared
    }

    /// Bytes that nobody can guess.
    ///
    /// # Panics
    /// When the kernel has no random numbers, without which nothing can be proved.
    pub(crate) fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.random.fill(&mut bytes).expect("the kernel has random numbers");
        bytes
    }

    /// The next attempt's.
    pub(crate) fn next_epoch(&self) -> u64 {
        self.epoch.set(self.epoch.get() + 1);
        self.epoch.get()
    }

    /// Gives a link to its shard; what becomes of it comes by the receiver.
    pub(crate) fn deliver(&self, dialled: Dialled) -> mpsc::UnboundedReceiver<Notice> {
        // Two notices a link at most.
        let (sender, news) = mpsc::unbounded_channel();
        self.links.borrow_mut().insert(dialled.identity.epoch, sender);
        (self.deliver.borrow_mut())(dialled);
        news
    }

    /// Passes on what a shard says of a link.
    pub(crate) fn tell(&self, notice: Notice) {
        let mut links = self.links.borrow_mut();
        let link = match notice {
            Notice::Draining { epoch } => links.get(&epoch).cloned(),
            Notice::Ended { epoch } => links.remove(&epoch),
        };
        if let Some(link) = link {
            // Nobody waits for the end of a link whose gateway drained.
            let _ = link.send(notice);
        }
    }

    /// Counts a link to a gateway process. False: it has links by another address, and one more would
    /// only take the place of one of those.
    pub(crate) fn claim(&self, gateway: u64, address: &Address) -> bool {
        let mut owners = self.owners.borrow_mut();
        let (owner, links) = owners.entry(gateway).or_insert_with(|| (address.clone(), 0));
        let is_owner = owner == address;
        *links += u32::from(is_owner);
        is_owner
    }

    /// Such a link is over.
    pub(crate) fn release(&self, gateway: u64) {
        let mut owners = self.owners.borrow_mut();
        let Some((_, links)) = owners.get_mut(&gateway) else { return };
        *links -= 1;
        if *links == 0 {
            owners.remove(&gateway);
            self.released.notify_waiters();
        }
    }
}
