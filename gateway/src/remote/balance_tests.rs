//! What reports, refusals and ends do to seats.

use reactor::clock::Nanos;

use super::balance::{Balance, Condition, Ending, FunctionIndex, Load, Outlook, SeatId};

const OPEN: Condition = Condition::Open;

fn seated(windows: &[u32]) -> (Balance, FunctionIndex, Vec<SeatId>) {
    let mut balance = Balance::new(1);
    let function = balance.add_function();
    let seats = windows.iter().map(|window| balance.join(function, *window)).collect();
    (balance, function, seats)
}

#[test]
fn calls_of_other_gateways_count_and_those_of_our_own_do_not_count_twice() {
    let (mut balance, function, seats) = seated(&[64, 64]);
    for _ in 0..5 {
        balance.begin(seats[0]);
    }
    for _ in 0..5 {
        balance.end(seats[0], Nanos(1), Ending::Unanswered);
    }
    // Counted before our answers left.
    balance.report(seats[0], &Load { calls: 5, room: 59, condition: OPEN });
    assert_eq!(balance.room(seats[0]), 64);
    balance.report(seats[0], &Load { calls: 25, room: 39, condition: OPEN });
    assert_eq!(balance.room(seats[0]), 44);
    for _ in 0..20 {
        let seat = balance.choose(function, Nanos(1)).unwrap();
        assert_eq!(seat, seats[1]);
        balance.begin(seat);
    }
}

#[test]
fn seats_that_are_full_broken_paused_or_draining_are_never_chosen() {
    let (mut balance, function, seats) = seated(&[1, 9, 9, 9, 9]);
    balance.begin(seats[0]);
    balance.set_condition(seats[1], Condition::Broken);
    balance.set_condition(seats[2], Condition::Paused);
    balance.set_condition(seats[3], Condition::Draining);
    for _ in 0..8 {
        assert_eq!(balance.choose(function, Nanos(1)), Some(seats[4]));
    }
    balance.leave(seats[4]);
    assert_eq!(balance.choose(function, Nanos(1)), None);
    assert_eq!(balance.outlook(function), Outlook::Full);
    balance.leave(seats[0]);
    balance.leave(seats[2]);
    assert_eq!(balance.outlook(function), Outlook::Broken);
    balance.leave(seats[1]);
    assert_eq!(balance.outlook(function), Outlook::Nobody);
    // Draining is final.
    balance.report(seats[3], &Load { calls: 0, room: 9, condition: OPEN });
    assert_eq!(balance.choose(function, Nanos(1)), None);
}

#[test]
fn a_seat_that_refused_as_full_opens_with_the_next_end_report_or_trial() {
    let (mut balance, function, seats) = seated(&[9]);
    balance.begin(seats[0]);
    balance.fill(seats[0]);
    assert_eq!(balance.choose(function, Nanos(1)), None);
    balance.end(seats[0], Nanos(1), Ending::Unanswered);
    assert_eq!(balance.room(seats[0]), 1);
    balance.fill(seats[0]);
    assert_eq!(balance.choose(function, Nanos(1)), None);
    balance.reopen(seats[0]);
    assert_eq!(balance.room(seats[0]), 1);
    balance.fill(seats[0]);
    balance.report(seats[0], &Load { calls: 0, room: 9, condition: OPEN });
    assert_eq!(balance.room(seats[0]), 9);
}
