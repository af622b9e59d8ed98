//! A slot's 64 bytes. A message has exactly one form: what is decoded is encoded to the same words.

use ipc::{Descriptor, ToEngine, ToWorker};

use crate::input::Input;

/// Takes the bytes for the words of one message, in either direction.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let descriptor = Descriptor(std::array::from_fn(|_| input.u64()));
    let to_engine = ToEngine::decode(&descriptor);
    let to_worker = ToWorker::decode(&descriptor);
    if let Ok(message) = &to_engine {
        assert_eq!(message.encode(), descriptor, "{message:?}");
    }
    if let Ok(message) = &to_worker {
        assert_eq!(message.encode(), descriptor, "{message:?}");
    }
    assert!(to_engine.is_err() || to_worker.is_err(), "a message of both directions");
}
