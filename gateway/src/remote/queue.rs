//! Calls of one function that wait for an engine with room, oldest first. A call keeps its place in
//! time: one that comes back from an engine that refused it is still older than what came after it.
//!
//! The bound is for newcomers, who ask [`Queue::is_full`]: calls that come back were admitted before, and
//! there are no more of them than engines have room for.

use std::collections::BTreeMap;

/// Calls by the order of their arrival.
pub(crate) struct Queue<T> {
    waiting: BTreeMap<u64, T>,
    capacity: usize,
}

impl<T> Queue<T> {
    pub(crate) fn new(capacity: usize) -> Queue<T> {
        Queue { waiting: BTreeMap::new(), capacity }
    }

    /// Whether a newcomer is to be refused.
    pub(crate) fn is_full(&self) -> bool {
        self.waiting.len() >= self.capacity
    }

    /// `sequence`: of the arrival, counted by the shard.
    pub(crate) fn put(&mut self, sequence: u64, call: T) {
        self.waiting.insert(sequence, call);
    }

    pub(crate) fn pop(&mut self) -> Option<T> {
        self.waiting.pop_first().map(|(_, call)| call)
    }

    pub(crate) fn remove(&mut self, sequence: u64) -> Option<T> {
        self.waiting.remove(&sequence)
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_leave_in_the_order_they_came_whether_or_not_they_came_back() {
        let mut queue = Queue::new(8);
        for sequence in 0..4 {
            queue.put(sequence, sequence);
        }
        assert_eq!((queue.pop(), queue.pop()), (Some(0), Some(1)));
        queue.put(4, 4);
        queue.put(0, 0);
        assert_eq!(queue.remove(3), Some(3));
        assert_eq!(queue.remove(3), None);
        let rest: Vec<u64> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(rest, [0, 2, 4]);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_newcomer_finds_a_full_queue_closed_and_a_returning_call_does_not() {
        let mut queue = Queue::new(1);
        assert!(!queue.is_full());
        queue.put(1, "first");
        assert!(queue.is_full());
        queue.put(0, "returned");
        assert_eq!((queue.len(), queue.pop()), (2, Some("returned")));
    }
}
