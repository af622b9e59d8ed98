//! The end of a link: what becomes of the calls that its engine had.

use std::collections::HashSet;

use ipc::Outcome;
use protocol::LinkError;
use protocol::message::Repeat;
use reactor::Reactor;
use reactor::clock::Nanos;

use super::balance::Ending;
use super::call::ATTEMPTS_MAX;
use super::directory::Standing;
use super::key::LinkKey;
use super::links::Remote;
use super::metrics::Again;
use super::peer::{Cause, Loss, Peer, Stage};
use super::submit::failure;

impl Remote {
    /// A link is over. Its calls go again where that does no harm; the others end here.
    pub(super) fn lose(&mut self, reactor: &mut Reactor, now: Nanos, key: LinkKey, loss: Loss) {
        if self.peer(key).is_none() {
            return;
        }
        let peer = self.peers.remove(key.slot());
        if self.identities.get(&peer.identity) == Some(&key) {
            self.identities.remove(&peer.identity);
        }
        let lost = self.calls.on_link(key);
        tell(&peer, &loss, lost.len());
        self.metrics.count_loss(loss.cause());
        let Peer { link, offers, .. } = peer;
        let unsent: HashSet<u64> = link.unsent_calls().collect();
        link.close(reactor, last_word(&loss).as_deref());
        // Ends first, seats then: those that are not offered any more leave with their last call.
        for (_, sent) in &lost {
            self.release(now, *sent, Ending::Unanswered);
        }
        let mut functions = Vec::with_capacity(offers.len());
        for offer in offers.into_values() {
            if let Some(seat) = offer.seat {
                self.balance.leave(seat);
                self.seats[seat.index()] = None;
            }
            functions.push(offer.function);
        }
        for (call, sent) in lost {
            let is_harmless =
                unsent.contains(&sent.stream.word()) || sent.repeat == Repeat::Idempotent;
            let Some(state) = self.calls.get_mut(call) else { continue };
            if is_harmless && state.attempts < ATTEMPTS_MAX && now < state.deadline {
                self.metrics.count_again(Again::Lost);
                self.enqueue(call);
            } else {
                let message = "the engine that had the call was lost";
                self.finish(call, failure(Outcome::HostLost, message, None));
            }
        }
        for function in functions {
            self.settle(now, function, Standing::Lost { since: now });
        }
    }
}

/// What the engine is told, where that makes sense.
fn last_word(loss: &Loss) -> Option<String> {
    match loss {
        Loss::Breach(_) | Loss::Replaced | Loss::Closing => Some(loss.to_string()),
        Loss::Link(LinkError::Protocol(error)) => Some(error.to_string()),
        Loss::Link(_) => None,
    }
}

fn tell(peer: &Peer, loss: &Loss, calls: usize) {
    let node = &peer.identity.node;
    let connection = peer.identity.connection;
    let is_expected = calls == 0 && peer.stage == Stage::Draining;
    match loss.cause() {
        Cause::Left if is_expected => tracing::info!("engine {node} has left: {loss}"),
        Cause::Replaced => tracing::info!("engine {node}, connection {connection}: {loss}"),
        _ => tracing::warn!(
            "engine {node}, connection {connection}, is lost with {calls} calls: {loss}"
        ),
    }
}
