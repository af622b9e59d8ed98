//! One connection to one gateway, kept for as long as it is wanted.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use engine::uplink::{Identity, Notice};
use protocol::Established;
use protocol::hello::{CONNECTIONS_MAX, Challenge};
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};

use crate::Dialled;
use crate::attempt;
use crate::backoff::{Backoff, PAUSE_MAX};
use crate::complaint::Complaints;
use crate::name::Address;
use crate::resolve::Place;
use crate::shared::Shared;

/// A link that lived for so long was a success: pauses begin anew.
const SUCCESS: Duration = PAUSE_MAX;

/// One gateway: an address.
pub(crate) struct Gateway {
    place: Place,
    label: Arc<str>,
    /// Connections that there are to be; none when no name leads here any more.
    wanted: watch::Sender<u16>,
    /// Those that a keeper cares for.
    kept: RefCell<HashSet<u16>>,
    complaints: Complaints,
}

/// How a link came to its end, for whoever dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The gateway drains; the link may live on for a while.
    Draining,
    Lost,
}

impl Gateway {
    pub(crate) fn new(place: Place) -> Rc<Gateway> {
        let label = place.address.to_string().into();
        Rc::new(Gateway {
            place,
            label,
            wanted: watch::Sender::new(0),
            kept: RefCell::default(),
            complaints: Complaints::default(),
        })
    }

    /// Begins to dial, or goes on. The first connection will tell how many there are to be.
    pub(crate) fn want(self: &Rc<Self>, shared: &Rc<Shared>) {
        if *self.wanted.borrow() == 0 {
            self.widen(shared, 1);
        }
    }

    /// Dials no more. Connections that are there stay until they end.
    pub(crate) fn forget(&self) {
        self.wanted.send_if_modified(|wanted| std::mem::take(wanted) > 0);
    }

    /// Whether nothing is to be kept and nothing is.
    pub(crate) fn is_gone(&self) -> bool {
        *self.wanted.borrow() == 0 && self.kept.borrow().is_empty()
    }

    /// Has so many connections kept: more, or fewer than before.
    fn widen(self: &Rc<Self>, shared: &Rc<Shared>, count: u16) {
        self.wanted.send_if_modified(|wanted| std::mem::replace(wanted, count) != count);
        for connection in 0..count {
            if self.kept.borrow_mut().insert(connection) {
                spawn_local(keep(Rc::clone(shared), Rc::clone(self), connection));
            }
        }
    }

    fn address(&self) -> &Address {
        &self.place.address
    }
}

async fn keep(shared: Rc<Shared>, gateway: Rc<Gateway>, connection: u16) {
    let mut wanted = gateway.wanted.subscribe();
    let mut backoff = Backoff::new();
    while *wanted.borrow_and_update() > connection {
        let epoch = shared.next_epoch();
        // While the handshake goes on, names may come to lead elsewhere: whoever has got this far is
        // let in all the same, as one who had been there before would be.
        match attempt::dial(&shared, &gateway.place, connection, epoch).await {
            Ok((established, challenge)) => {
                gateway.complaints.clear(&gateway.label);
                let gone = shared.released.notified();
                if !shared.claim(challenge.instance, gateway.address()) {
                    drop(established);
                    tracing::debug!("gateway {} has another address in use", gateway.label);
                    tokio::select! { () = gone => {}, _ = wanted.changed() => {} }
                    continue;
                }
                let began = Instant::now();
                let identity = Identity { gateway: Arc::clone(&gateway.label), connection, epoch };
                let end = serve(&shared, &gateway, established, &challenge, identity).await;
                shared.release(challenge.instance);
                if began.elapsed() >= SUCCESS {
                    backoff = Backoff::new();
                }
                if end == End::Draining {
                    continue;
                }
            }
            Err(error) => _ = gateway.complaints.tell(&gateway.label, &error),
        }
        // Not its own change: that of the number of connections which the gateway wants.
        if *wanted.borrow_and_update() <= connection {
            break;
        }
        let pause = backoff.next(u64::from_le_bytes(shared.random()));
        tokio::select! { () = sleep(pause) => {}, _ = wanted.changed() => {} }
    }
    gateway.kept.borrow_mut().remove(&connection);
}

/// Gives a link to its shard, and waits for its end.
async fn serve(
    shared: &Rc<Shared>,
    gateway: &Rc<Gateway>,
    established: Established,
    challenge: &Challenge,
    identity: Identity,
) -> End {
    let shards = shared.settings.shards;
    let shard = identity.connection % shards;
    let count = shards.max(challenge.shards).min(CONNECTIONS_MAX);
    let news = shared.deliver(Dialled { shard, established, identity });
    // A gateway that no name leads to any more stays unwanted.
    if *gateway.wanted.borrow() > 0 {
        gateway.widen(shared, count);
    }
    end(news).await
}

async fn end(mut news: mpsc::UnboundedReceiver<Notice>) -> End {
    match news.recv().await {
        Some(Notice::Draining { .. }) => End::Draining,
        Some(Notice::Ended { .. }) | None => End::Lost,
    }
}
