//! A worker allocates nothing per call once it is warm: neither for calls it serves nor for calls
//! it makes.

#![allow(clippy::unwrap_used)]

mod engine;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use engine::Engine;
use nightcore::host::library::V2Call;
use nightcore::{CallError, Context};

/// Counts what the calling thread allocates; the engine's thread may do as it likes.
struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: hands everything to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Both put the worker's count before what they do, as they are entered.
fn count() -> [u8; 8] {
    COUNT.with(Cell::get).to_le_bytes()
}

struct Counted<'a>(&'a [u8]);

impl nightcore::Reply for Counted<'_> {
    fn reply(self, mut output: nightcore::Output<'_>) -> Result<(), nightcore::Error> {
        output.append(&count())?;
        output.append(self.0)
    }
}

#[nightcore::function]
fn echo(input: &[u8]) -> Counted<'_> {
    Counted(input)
}

#[nightcore::function]
fn chain(context: &Context) -> Result<Counted<'static>, CallError> {
    for _ in 0..100 {
        context.call("echo", &[1; 1024])?;
    }
    Ok(Counted(b""))
}

#[nightcore::function]
fn fanout(context: &Context) -> Result<Counted<'static>, CallError> {
    let calls: [_; 20] = std::array::from_fn(|_| context.start("echo", &[1; 1024]));
    for call in calls {
        call?.wait()?;
    }
    Ok(Counted(b""))
}

#[test]
fn a_warm_worker_allocates_nothing() {
    for entry in [__nightcore_call_echo as V2Call, __nightcore_call_chain, __nightcore_call_fanout]
    {
        let mut engine = Engine::with_entry(1 << 20, entry);
        let mut counts = Vec::new();
        for _ in 0..50 {
            counts.push(engine.run(&[3; 2000]).payload[..8].to_vec());
        }
        assert!(counts[10..].iter().all(|count| *count == counts[10]), "{counts:?}");
        engine.retire().unwrap();
    }
}
