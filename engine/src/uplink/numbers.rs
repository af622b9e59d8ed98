//! The numbers by which gateways name this shard's functions: the same on all of its links. A name
//! keeps its number through all its versions; one that was removed leaves its number unused for ever.

use std::collections::HashMap;

use protocol::ProtocolError;
use protocol::message::{Function, encode_functions};

use crate::core::FunctionId;
use crate::io::{Engine, Offer};

/// See the module's description. As many as the engine has functions.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    by_name: HashMap<Box<str>, u32>,
    by_number: HashMap<u32, FunctionId>,
    by_function: HashMap<FunctionId, u32>,
    /// Every number below it was announced.
    next: u32,
    /// [`Engine::routes`] when they were last looked at.
    routes: Option<u64>,
    functions: Vec<Function>,
}

/// What a number stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named {
    Function(FunctionId),
    /// A function that has left: whoever calls it has not heard of that yet.
    Gone,
    /// Nothing, ever: no correct gateway says it.
    Never,
}

impl Numbers {
    /// Catches up with the engine. True: the functions must be announced again.
    pub(super) fn refresh(&mut self, engine: &Engine) -> bool {
        if self.routes == Some(engine.routes()) {
            return false;
        }
        self.routes = Some(engine.routes());
        let offers = engine.offers();
        self.by_number.clear();
        self.by_function.clear();
        self.functions.clear();
        for offer in &offers {
            let number = self.number(offer.name);
            self.by_number.insert(number, offer.id);
            self.by_function.insert(offer.id, number);
            self.functions.push(announcement(offer, number));
        }
        let by_number = &self.by_number;
        self.by_name.retain(|_, number| by_number.contains_key(number));
        true
    }

    fn number(&mut self, name: &str) -> u32 {
        if let Some(number) = self.by_name.get(name) {
            return *number;
        }
        let number = self.next;
        self.next += 1;
        self.by_name.insert(name.into(), number);
        number
    }

    pub(super) fn named(&self, number: u32) -> Named {
        match self.by_number.get(&number) {
            Some(function) => Named::Function(*function),
            None if number < self.next => Named::Gone,
            None => Named::Never,
        }
    }

    /// The number of a function, if a name leads to it.
    pub(super) fn of(&self, function: FunctionId) -> Option<u32> {
        self.by_function.get(&function).copied()
    }

    /// All functions with their numbers.
    pub(super) fn all(&self) -> impl Iterator<Item = (FunctionId, u32)> {
        self.by_function.iter().map(|(function, number)| (*function, *number))
    }

    /// The body of FUNCTIONS.
    pub(super) fn encode(&self) -> Result<Vec<u8>, ProtocolError> {
        let mut out = Vec::new();
        encode_functions(&self.functions, &mut out)?;
        Ok(out)
    }
}

fn announcement(offer: &Offer<'_>, number: u32) -> Function {
    let Offer { name, version, timeout_ns, repeat, capacity, .. } = *offer;
    Function { number, name: name.to_owned(), version, timeout_ns, repeat, capacity }
}
