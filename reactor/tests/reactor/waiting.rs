//! How long a turn waits, and what it costs.

use crate::harness::*;
use reactor::{Event, Token, Wait, clock};
use std::os::fd::AsFd;
use std::time::Duration;

#[test]
fn a_wait_without_events_lasts_at_least_the_time_given() {
    let _watchdog = watchdog();
    let mut reactor = reactor();
    let mut events = Vec::new();
    for wait in [Duration::from_micros(500), Duration::from_millis(30)] {
        let start = clock::now();
        reactor.turn(Wait::Until(start + wait), &mut events).unwrap();
        assert!(events.is_empty());
        assert!(clock::now().saturating_since(start) >= wait);
    }
}

#[test]
fn a_wait_longer_than_the_kernel_can_count_is_accepted() {
    let _watchdog = watchdog();
    let mut reactor = reactor();
    reactor.message(reactor.address(), 1);
    let mut events = Vec::new();
    reactor.turn(Wait::Until(clock::now() + Duration::MAX), &mut events).unwrap();
    assert!(matches!(events[..], [Event::Message { value: 1 }]), "{events:?}");
}

#[test]
fn a_wait_for_an_earlier_time_than_the_last_one_ends_in_time_and_a_later_one_lasts() {
    let _watchdog = watchdog();
    let mut reactor = reactor();
    let mut events = Vec::new();
    let start = clock::now();
    reactor.message(reactor.address(), 1);
    // Ends by the message, and leaves the kernel's timeout at an hour from now.
    reactor.turn(Wait::Until(start + Duration::from_secs(3600)), &mut events).unwrap();
    assert!(matches!(events[..], [Event::Message { value: 1 }]), "{events:?}");
    events.clear();
    for wait in [Duration::from_millis(5), Duration::from_millis(20)] {
        let until = clock::now() + wait;
        // May end early, but makes no more than a few turns of it; the watchdog sees one that hangs.
        while clock::now() < until {
            reactor.turn(Wait::Until(until), &mut events).unwrap();
        }
        assert!(events.is_empty(), "{events:?}");
    }
}

#[test]
fn a_turn_costs_one_system_call_and_an_idle_one_none() {
    let _watchdog = watchdog();
    let mut reactor = reactor();
    let bell = eventfd(1);
    let mut events = Vec::new();
    reactor.poll(bell.as_fd(), Token(1));
    reactor.turn(Wait::Forever, &mut events).unwrap();
    events.clear();
    let before = reactor.enters();
    for _ in 0..100 {
        // Submits the ring, and waits for the edge it makes.
        reactor.ring_doorbell(bell.as_fd(), Token(2));
        reactor.turn(Wait::Forever, &mut events).unwrap();
        assert!(matches!(events[..], [Event::Polled { .. }]), "{events:?}");
        events.clear();
    }
    assert_eq!(reactor.enters() - before, 100);
    for _ in 0..100 {
        assert_quiet(&mut reactor);
    }
    assert_eq!(reactor.enters() - before, 100);
}

#[test]
fn a_turn_that_does_not_wait_sees_what_another_thread_did() {
    let _watchdog = watchdog();
    let mut reactor = reactor();
    let bell = eventfd(0);
    reactor.poll(bell.as_fd(), Token(1));
    assert_quiet(&mut reactor);
    std::thread::scope(|scope| {
        scope.spawn(|| add(bell.as_fd(), 1).unwrap());
        let mut events = Vec::new();
        while events.is_empty() {
            reactor.turn(Wait::Not, &mut events).unwrap();
        }
        assert!(matches!(events[..], [Event::Polled { token: Token(1) }]), "{events:?}");
    });
}

#[test]
fn a_wait_returns_at_once_for_completions_that_are_there() {
    let _watchdog = watchdog();
    let mut reactor = reactor();
    let (socket, _peer) = connection();
    // The send completes while `shutdown` submits it, before the turn.
    reactor.send(socket.as_fd(), vec![1], 0, Token(1));
    reactor.shutdown(socket.as_fd(), std::net::Shutdown::Read);
    let mut events = Vec::new();
    reactor.turn(Wait::Forever, &mut events).unwrap();
    assert!(matches!(events[..], [Event::Sent { result: Ok(1), .. }]), "{events:?}");
}

#[test]
fn a_signal_ends_a_wait_without_an_error() {
    let _watchdog = watchdog();
    extern "C" fn ignore(_: libc::c_int) {}
    let handler = ignore as extern "C" fn(libc::c_int) as libc::sighandler_t;
    // SAFETY: the handler does nothing, so it may interrupt anything.
    unsafe { libc::signal(libc::SIGUSR1, handler) };
    // SAFETY: takes nothing, cannot fail.
    let thread = unsafe { libc::pthread_self() };
    let mut reactor = reactor();
    let mut events = Vec::new();
    std::thread::scope(|scope| {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        scope.spawn(move || {
            // Until one meets the wait.
            while stopped.try_recv().is_err() {
                // SAFETY: the scope keeps the thread alive.
                unsafe { libc::pthread_kill(thread, libc::SIGUSR1) };
                std::thread::yield_now();
            }
        });
        reactor.turn(Wait::Forever, &mut events).unwrap();
        stop.send(()).unwrap();
    });
    assert!(events.is_empty());
}
