//! Who holds how much memory: bodies that are being gathered, answers that are being taken. All
//! clients together have one allowance. When it is used up, the client that holds most is closed,
//! so that whoever makes the server hold things pays for it and nobody else does.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The memory of all clients.
#[derive(Debug)]
pub struct Ledger {
    limit: usize,
    /// Sum over all clients, those that were closed included until their bytes are free.
    held: AtomicUsize,
    /// As many as there are connections. Taken to join, to leave, and when memory is short.
    clients: Mutex<Vec<Arc<Client>>>,
}

/// One client's page.
#[derive(Debug)]
pub struct Client {
    held: AtomicUsize,
    /// Those of them that are answers.
    owed: AtomicUsize,
    doomed: AtomicBool,
    doom: Notify,
    ledger: Arc<Ledger>,
}

/// Bytes that are held for a client, until this is dropped.
#[derive(Debug)]
pub struct Hold {
    client: Arc<Client>,
    size: usize,
    side: Side,
}

/// What memory is held for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// What the client sent.
    Request,
    /// What it has to take.
    Answer,
}

/// A client's membership. It leaves when this is dropped.
#[derive(Debug)]
pub struct Member(Arc<Client>);

/// There is no room, and nobody holds more than who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too much is held for clients")]
pub struct Crowded;

// Counters: each is exact by itself, and none publishes other data, so all of them are relaxed. A
// decision from counts a moment old is off by what is reserved in that moment.
impl Ledger {
    /// With room for so many bytes.
    #[must_use]
    pub fn new(limit: usize) -> Arc<Ledger> {
        let (held, clients) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        Arc::new(Ledger { limit, held, clients })
    }

    /// A new client.
    #[must_use]
    pub fn join(self: &Arc<Self>) -> Member {
        let client = Arc::new(Client {
            held: AtomicUsize::new(0),
            owed: AtomicUsize::new(0),
            doomed: AtomicBool::new(false),
            doom: Notify::new(),
            ledger: Arc::clone(self),
        });
        self.clients().push(Arc::clone(&client));
        Member(client)
    }

    /// Bytes that are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    fn clients(&self) -> MutexGuard<'_, Vec<Arc<Client>>> {
        // A list of pointers is whole, whoever panicked beside it.
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Dooms whoever holds most, if that is more than `client` would with `size` more.
    fn make_room(&self, client: &Client, size: usize) -> Result<(), Crowded> {
        let clients = self.clients();
        let others = clients.iter().filter(|other| !other.is_doomed());
        let largest = others.max_by_key(|other| other.held()).ok_or(Crowded)?;
        if largest.held() <= client.held() + size || std::ptr::eq(&raw const **largest, client) {
            return Err(Crowded);
        }
        largest.doomed.store(true, Ordering::Relaxed);
        largest.doom.notify_one();
        Ok(())
    }
}

impl Client {
    /// Holds bytes for this client.
    ///
    /// # Errors
    /// There is no room.
    pub fn hold(self: &Arc<Self>, side: Side, size: usize) -> Result<Hold, Crowded> {
        let mut hold = Hold { client: Arc::clone(self), size: 0, side };
        hold.grow(size)?;
        Ok(hold)
    }

    /// Bytes held for this client.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Bytes of answers that it has to take.
    #[must_use]
    pub fn owed(&self) -> usize {
        self.owed.load(Ordering::Relaxed)
    }

    /// Whether its memory was given to others.
    #[must_use]
    pub fn is_doomed(&self) -> bool {
        self.doomed.load(Ordering::Relaxed)
    }

    /// Waits until it is. For one waiter.
    pub async fn doom(&self) {
        self.doom.notified().await;
    }
}

impl Hold {
    /// Holds more.
    ///
    /// # Errors
    /// There is no room; what was held still is.
    pub fn grow(&mut self, size: usize) -> Result<(), Crowded> {
        let (client, ledger) = (&self.client, &self.client.ledger);
        // What the doomed hold comes back within a turn of their thread. Until then it is counted, so
        // one who would exceed it twice over has to wait.
        let after = ledger.held.fetch_add(size, Ordering::Relaxed) + size;
        let over = after.saturating_sub(ledger.limit);
        let admitted = match over {
            0 => Ok(()),
            _ if client.is_doomed() || over > ledger.limit => Err(Crowded),
            _ => ledger.make_room(client, size),
        };
        if admitted.is_err() {
            ledger.held.fetch_sub(size, Ordering::Relaxed);
            return admitted;
        }
        client.held.fetch_add(size, Ordering::Relaxed);
        if self.side == Side::Answer {
            client.owed.fetch_add(size, Ordering::Relaxed);
        }
        self.size += size;
        Ok(())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.side == Side::Answer {
            self.client.owed.fetch_sub(self.size, Ordering::Relaxed);
        }
        self.client.held.fetch_sub(self.size, Ordering::Relaxed);
        self.client.ledger.held.fetch_sub(self.size, Ordering::Relaxed);
    }
}

impl Member {
    /// Its page.
    #[must_use]
    pub fn client(&self) -> &Arc<Client> {
        &self.0
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.0.ledger.clients().retain(|client| !Arc::ptr_eq(client, &self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_comes_back() {
        let ledger = Ledger::new(100);
        let member = ledger.join();
        let mut hold = member.client().hold(Side::Request, 60).unwrap();
        hold.grow(40).unwrap();
        assert_eq!((ledger.held(), member.client().held()), (100, 100));
        assert_eq!(hold.grow(1), Err(Crowded));
        assert_eq!(member.client().owed(), 0, "it is not an answer");
        drop(hold);
        assert_eq!((ledger.held(), member.client().held()), (0, 0));
        let answer = member.client().hold(Side::Answer, 5).unwrap();
        assert_eq!(member.client().owed(), 5);
        drop(answer);
        assert_eq!(member.client().owed(), 0);
    }

    #[test]
    fn whoever_holds_most_makes_room() {
        let ledger = Ledger::new(100);
        let (greedy, modest, new) = (ledger.join(), ledger.join(), ledger.join());
        let much = greedy.client().hold(Side::Request, 80).unwrap();
        let little = modest.client().hold(Side::Request, 15).unwrap();
        let mine = new.client().hold(Side::Request, 10).unwrap();
        assert!(greedy.client().is_doomed());
        assert!(!modest.client().is_doomed());
        assert!(greedy.client().hold(Side::Request, 1).is_err());
        drop((much, little, mine));
        assert_eq!(ledger.held(), 0);
    }

    #[test]
    fn nobody_makes_room_for_who_would_hold_most() {
        let ledger = Ledger::new(100);
        let (modest, greedy) = (ledger.join(), ledger.join());
        let _little = modest.client().hold(Side::Request, 50).unwrap();
        assert!(greedy.client().hold(Side::Request, 51).is_err());
        assert!(!modest.client().is_doomed());
        assert_eq!(ledger.held(), 50);
    }

    #[test]
    fn the_doomed_do_not_make_room_twice() {
        let ledger = Ledger::new(100);
        let (greedy, modest, new) = (ledger.join(), ledger.join(), ledger.join());
        let _much = greedy.client().hold(Side::Request, 70).unwrap();
        let _little = modest.client().hold(Side::Request, 30).unwrap();
        let _mine = new.client().hold(Side::Request, 20).unwrap();
        assert!(new.client().hold(Side::Request, 20).is_err(), "the greedy one is doomed already");
        assert!(!modest.client().is_doomed());
    }

    #[test]
    fn who_has_left_is_not_asked() {
        let ledger = Ledger::new(100);
        let (gone, new) = (ledger.join(), ledger.join());
        let _rest = gone.client().hold(Side::Request, 90).unwrap();
        drop(gone);
        assert!(new.client().hold(Side::Request, 20).is_err());
    }
}
