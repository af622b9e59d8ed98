//! The functions that engines have, by name: numbered once and for good, since a request holds the
//! number while its body comes.

use std::collections::HashMap;
use std::time::Duration;

use reactor::clock::Nanos;

use super::balance::FunctionIndex;
use super::key::CallKey;
use super::queue::Queue;

/// Names that a shard remembers: four full engines without one in common. Those that come then are
/// not served.
pub(super) const NAMES_MAX: usize = 16 * 1024;

/// A function, wherever it is.
pub(super) struct Function {
    pub(super) name: String,
    /// The longest that an engine allows: each ends its own calls in time, and one with a wrong idea
    /// of it must not end those of others.
    pub(super) timeout: Duration,
    /// Calls that wait for an engine with room.
    pub(super) queue: Queue<CallKey>,
    pub(super) standing: Standing,
}

/// Whether engines have a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// At least one does.
    Served,
    /// All that had it are lost or draining: one may be back soon.
    Lost { since: Nanos },
    /// The last one that had it says that it has it no more.
    Withdrawn,
}

#[derive(Default)]
pub(super) struct Directory {
    by_name: HashMap<String, FunctionIndex>,
    functions: Vec<Function>,
}

impl Function {
    /// An engine allows calls that long.
    pub(super) fn allow(&mut self, timeout: Duration) {
        self.timeout = match self.standing {
            Standing::Served => self.timeout.max(timeout),
            Standing::Lost { .. } | Standing::Withdrawn => timeout,
        };
    }
}

impl Directory {
    pub(super) fn find(&self, name: &[u8]) -> Option<FunctionIndex> {
        let name = std::str::from_utf8(name).ok()?;
        self.by_name.get(name).copied()
    }

    /// Another name, with the number that the balance gave it.
    pub(super) fn add(&mut self, index: FunctionIndex, name: &str, queue: usize) {
        debug_assert_eq!(index.0 as usize, self.functions.len(), "both count alike");
        self.by_name.insert(name.to_owned(), index);
        self.functions.push(Function {
            name: name.to_owned(),
            timeout: Duration::ZERO,
            queue: Queue::new(queue),
            standing: Standing::Withdrawn,
        });
    }

    pub(super) fn get(&self, index: FunctionIndex) -> Option<&Function> {
        self.functions.get(index.0 as usize)
    }

    /// `index`: one that was added.
    pub(super) fn at(&mut self, index: FunctionIndex) -> &mut Function {
        &mut self.functions[index.0 as usize]
    }

    pub(super) fn len(&self) -> usize {
        self.functions.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (FunctionIndex, &Function)> {
        let numbers = 0..;
        numbers.map(FunctionIndex).zip(&self.functions)
    }
}
