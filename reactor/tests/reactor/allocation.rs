//! In a steady state a turn allocates nothing.

use crate::harness::*;
use reactor::wheel::Wheel;
use reactor::{Event, Token, Wait, clock};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::os::fd::AsFd;
use std::time::Duration;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: the system's allocator, with a count beside it that does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps the contract of alloc, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of dealloc, and `alloc` took it from System.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_steady_state_allocates_nothing() {
    let _watchdog = watchdog();
    let mut reactor = reactor();
    let (near, far) = connection();
    far.set_nonblocking(true).unwrap();
    let bell = eventfd(1);
    reactor.receive(far.as_fd(), Token(1));
    reactor.poll(bell.as_fd(), Token(2));
    let mut wheel = Wheel::new(Duration::from_millis(1));
    let mut events = Vec::with_capacity(64);
    let mut buffers =
        Some((vec![1; 64], Box::new(vec![2u8; 64]) as Box<dyn reactor::StableBuffer>));
    let mut counted_from = 0;
    for round in 0..2000 {
        if round == 1000 {
            counted_from = ALLOCATIONS.get();
        }
        let (head, body) = buffers.take().unwrap();
        reactor.send_with_body(near.as_fd(), head, body, 0, Token(3));
        reactor.ring_doorbell(bell.as_fd(), Token(4));
        reactor.message(reactor.address(), 5);
        let timer = wheel.insert(clock::now() + Duration::from_secs(1), round);
        let (mut received, mut polled, mut messages) = (0, 0, 0);
        while received < 128 || polled < 1 || messages < 1 || buffers.is_none() {
            reactor.turn(Wait::Forever, &mut events).unwrap();
            for event in events.drain(..) {
                match event {
                    Event::Received { data, .. } => received += data.len(),
                    Event::Polled { .. } => polled += 1,
                    Event::Message { .. } => messages += 1,
                    Event::Sent { data, body, result, .. } => {
                        assert_eq!(result.unwrap(), 128);
                        buffers = body.map(|body| (data, body));
                    }
                    other => panic!("{other:?}"),
                }
            }
            wheel.expire(clock::now(), |_| ());
        }
        wheel.cancel(timer);
    }
    assert_eq!(ALLOCATIONS.get() - counted_from, 0);
}
