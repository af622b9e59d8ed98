//! Rings must be cheap, silent, and above all never wait for whoever else holds the eventfd.

use crate::harness::*;
use reactor::{Event, Reactor, Token, Wait};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

const FULL: u64 = u64::MAX - 1;

fn set_blocking(fd: BorrowedFd<'_>, blocking: bool) {
    let flags = if blocking { 0 } else { libc::O_NONBLOCK };
    // SAFETY: takes no memory.
    assert_eq!(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags) }, 0);
}

/// One ring, one turn; the errno of its failure, if any.
fn ring(reactor: &mut Reactor, bell: BorrowedFd<'_>) -> Option<i32> {
    reactor.ring_doorbell(bell, Token(7));
    let mut events = Vec::new();
    reactor.turn(Wait::Not, &mut events).unwrap();
    match events.pop()? {
        Event::DoorbellFailed { token: Token(7), error } => error.raw_os_error(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn rings_are_silent_and_change_no_count() {
    let _watchdog = watchdog();
    let mut reactor = reactor();
    let bell = eventfd(1);
    for _ in 0..1000 {
        reactor.ring_doorbell(bell.as_fd(), Token(7));
    }
    assert_quiet(&mut reactor);
    assert_quiet(&mut reactor);
    assert_eq!(take(bell.as_fd()).unwrap(), 1);
    assert_eq!(reactor.in_flight(), 0);
    assert!(kernel_workers().is_empty());
}

#[test]
fn a_full_counter_is_no_obstacle() {
    let _watchdog = watchdog();
    let mut reactor = reactor();
    let bell = eventfd(0);
    add(bell.as_fd(), FULL).unwrap();
    assert_eq!(ring(&mut reactor, bell.as_fd()), None);
    assert!(kernel_workers().is_empty());
    assert_eq!(take(bell.as_fd()).unwrap(), FULL);
}

#[test]
fn a_doorbell_made_blocking_by_its_other_holder_fails_the_ring_at_once() {
    let _watchdog = watchdog();
    let mut reactor = reactor();
    let bell = eventfd(0);
    let other_holder = bell.try_clone().unwrap();
    add(other_holder.as_fd(), FULL).unwrap();
    set_blocking(other_holder.as_fd(), true);
    for _ in 0..100 {
        assert_eq!(ring(&mut reactor, bell.as_fd()), Some(libc::EAGAIN));
    }
    assert!(kernel_workers().is_empty());
    // Nor does it help that there is room.
    assert_eq!(take(bell.as_fd()).unwrap(), FULL);
    assert_eq!(ring(&mut reactor, bell.as_fd()), Some(libc::EAGAIN));
    assert!(kernel_workers().is_empty());
    assert_eq!(reactor.in_flight(), 0);
}

/// A ring of 1 hangs here more often than not: the kernel looks at the flag twice (`docs/reactor.md`).
#[test]
fn a_holder_that_fills_the_counter_and_flips_the_flag_never_makes_a_ring_wait() {
    let _watchdog = watchdog();
    let mut reactor = reactor();
    let bell = eventfd(0);
    add(bell.as_fd(), FULL).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                // SYNC(done): relaxed; nothing is published with it.
                while !done.load(Ordering::Relaxed) {
                    set_blocking(bell.as_fd(), true);
                    set_blocking(bell.as_fd(), false);
                }
            });
        }
        let mut events = Vec::new();
        for _ in 0..2_000 {
            for _ in 0..100 {
                reactor.ring_doorbell(bell.as_fd(), Token(7));
            }
            reactor.turn(Wait::Not, &mut events).unwrap();
            for event in events.drain(..) {
                let Event::DoorbellFailed { error, .. } = event else { panic!("{event:?}") };
                assert_eq!(error.raw_os_error(), Some(libc::EAGAIN));
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(kernel_workers().is_empty());
}

#[test]
fn ringing_what_is_no_eventfd_fails_with_the_token_of_that_ring() {
    let _watchdog = watchdog();
    let mut reactor = reactor();
    let good = eventfd(1);
    let read_only = std::fs::File::open("/dev/null").unwrap();
    reactor.ring_doorbell(good.as_fd(), Token(1));
    reactor.ring_doorbell(read_only.as_fd(), Token(2));
    let mut events = Vec::new();
    reactor.turn(Wait::Not, &mut events).unwrap();
    assert!(matches!(&events[..], [Event::DoorbellFailed { token: Token(2), .. }]), "{events:?}");
}

#[test]
fn each_ring_of_an_unread_eventfd_is_an_edge_across_threads() {
    let _watchdog = watchdog();
    let bell = eventfd(0);
    let mut reactor = reactor();
    reactor.poll(bell.as_fd(), Token(1));
    thread::scope(|scope| {
        let (answered, answers) = std::sync::mpsc::channel();
        let writer_bell = bell.as_fd();
        scope.spawn(move || {
            for _ in 0..10_000 {
                add(writer_bell, 1).unwrap();
                answers.recv().unwrap();
            }
        });
        let mut edges = 0;
        turn_until(&mut reactor, |_, event| {
            assert!(matches!(event, Event::Polled { token: Token(1) }), "{event:?}");
            edges += 1;
            answered.send(()).unwrap();
            edges == 10_000
        });
    });
    assert_eq!(take(bell.as_fd()).unwrap(), 10_000);
    assert_eq!(reactor.in_flight(), 1);
}

#[test]
fn one_reactor_rings_another() {
    let _watchdog = watchdog();
    let (there, back) = (eventfd(1), eventfd(1));
    let armed = Barrier::new(2);
    let bounce = |poll: BorrowedFd<'_>, bell: BorrowedFd<'_>, first: bool| {
        let mut reactor = reactor();
        reactor.poll(poll, Token(1));
        // The first edge is the count that the eventfd was made with; a ring before it is lost
        // in it.
        turn_until(&mut reactor, |_, event| matches!(event, Event::Polled { .. }));
        armed.wait();
        if first {
            reactor.ring_doorbell(bell, Token(2));
        }
        let mut rounds = 0;
        turn_until(&mut reactor, |reactor, event| {
            assert!(matches!(event, Event::Polled { .. }), "{event:?}");
            reactor.ring_doorbell(bell, Token(2));
            rounds += 1;
            rounds == 10_000
        });
        // The last ring is still queued.
        assert_quiet(&mut reactor);
    };
    thread::scope(|scope| {
        scope.spawn(|| bounce(there.as_fd(), back.as_fd(), false));
        bounce(back.as_fd(), there.as_fd(), true);
    });
}
