//! Frames of large messages on their way into one send: heads in memory of our own, bodies where they
//! lie. With `socket`, one of the two files of this crate with unsafe code: a promise to the reactor.
#![allow(unsafe_code)]

use std::rc::Rc;

use ipc::engine_side::{SharedBlock, SharedSlice};
use reactor::clock::Nanos;
use reactor::{PARTS_MAX, StableBuffer};

/// Bodies that a send refers to: each takes two parts, with what is our own behind it.
const PIECES_MAX: usize = PARTS_MAX / 2;
/// Bytes of a body that are copied rather than referred to: a part costs the kernel about as much.
const COPY_MAX: usize = 2 * 1024;

/// A worker's block that is being sent, and since when: the worker cannot go on before it is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Pin {
    /// Kept for its drop.
    pub(crate) _block: Rc<SharedBlock>,
    pub(crate) since: Nanos,
}

/// See the module's description.
#[derive(Debug, Default)]
pub(crate) struct Gather {
    own: Vec<u8>,
    pieces: Vec<Piece>,
}

#[derive(Debug)]
struct Piece {
    /// Bytes of `own` before it.
    at: usize,
    body: SharedSlice,
    pin: Option<Pin>,
}

/// Where frames of large messages go.
pub(crate) enum Sink<'a> {
    /// All of it copied.
    Copied(&'a mut Vec<u8>),
    /// Bodies referred to.
    Gathered(&'a mut Gather),
}

impl Sink<'_> {
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        match self {
            Sink::Copied(out) => out.extend_from_slice(bytes),
            Sink::Gathered(gather) => gather.own.extend_from_slice(bytes),
        }
    }

    pub(crate) fn body(&mut self, body: SharedSlice, pin: Option<&Pin>) {
        match self {
            Sink::Copied(out) => body.append_to(out),
            Sink::Gathered(gather) => gather.push(body, pin),
        }
    }
}

impl Gather {
    fn push(&mut self, body: SharedSlice, pin: Option<&Pin>) {
        if body.len() <= COPY_MAX || self.pieces.len() == PIECES_MAX {
            body.append_to(&mut self.own);
        } else {
            self.pieces.push(Piece { at: self.own.len(), body, pin: pin.cloned() });
        }
    }

    /// Bytes.
    pub(crate) fn size(&self) -> usize {
        self.own.len() + self.pieces.iter().map(|piece| piece.body.len()).sum::<usize>()
    }

    /// Since when the first of the workers waits, if one does.
    pub(crate) fn pinned_since(&self) -> Option<Nanos> {
        self.pieces.iter().filter_map(|piece| Some(piece.pin.as_ref()?.since)).min()
    }

    /// What has not been sent of `head` and this, in the vector of `head`.
    pub(crate) fn copy_rest(&self, mut head: Vec<u8>, sent: usize) -> Vec<u8> {
        let mut skip = sent.saturating_sub(head.len());
        head.drain(..sent.min(head.len()));
        head.reserve(self.size().saturating_sub(skip));
        let mut own_from = 0;
        for Piece { at, body, .. } in &self.pieces {
            append(&self.own[own_from..*at], &mut skip, &mut head);
            own_from = *at;
            let skipped = skip.min(body.len());
            body.slice(skipped..body.len()).append_to(&mut head);
            skip -= skipped;
        }
        append(&self.own[own_from..], &mut skip, &mut head);
        head
    }

    fn own_between(&self, index: usize) -> &[u8] {
        let from = index.checked_sub(1).map_or(0, |before| self.pieces[before].at);
        let end = self.pieces.get(index).map_or(self.own.len(), |piece| piece.at);
        &self.own[from..end]
    }
}

/// Appends bytes without the first `skip`, and says how many are left to be skipped.
fn append(bytes: &[u8], skip: &mut usize, out: &mut Vec<u8>) {
    let skipped = bytes.len().min(*skip);
    out.extend_from_slice(&bytes[skipped..]);
    *skip -= skipped;
}

/// One hold on a [`Gather`], for a send.
pub(crate) struct Held(pub(crate) Rc<Gather>);

// SAFETY: `own` is a vector behind an Rc that gives no mutable access while this holds it. Each piece
// names a range that `ipc` checked against the mapping or heap bytes in which it lies, and holds a count
// of those. So all ranges stay readable, and the same, while `self` lives, wherever it is moved. A
// function may change the bytes of a mapping meanwhile, which the trait allows.
unsafe impl StableBuffer for Held {
    fn bytes(&self) -> (*const u8, usize) {
        let own = self.0.own_between(0);
        (own.as_ptr(), own.len())
    }

    fn part(&self, index: usize) -> Option<(*const u8, usize)> {
        let body = &self.0.pieces.get(index / 2)?.body;
        if index.is_multiple_of(2) {
            return Some((body.as_ptr(), body.len()));
        }
        let own = self.0.own_between(index / 2 + 1);
        Some((own.as_ptr(), own.len()))
    }
}
