//! A decision of the balance and a load report, from 1 to 1,000 engines: both must stay flat, and a
//! decision below 1 us.

#![allow(missing_docs, reason = "criterion_group! makes a public function")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use gateway::remote::balance::{Balance, Condition, Ending, FunctionIndex, Load, SeatId};
use reactor::clock::Nanos;

const ENGINES: [u32; 4] = [1, 10, 100, 1_000];
const WINDOW: u32 = 64;
/// Between two decisions.
const GAP: Duration = Duration::from_micros(10);

/// Engines that have answered before, every tenth three times slower, with calls in flight.
fn balance(engines: u32) -> (Balance, FunctionIndex, Vec<SeatId>) {
    let mut balance = Balance::new(1);
    let function = balance.add_function();
    let seats: Vec<SeatId> = (0..engines).map(|_| balance.join(function, WINDOW)).collect();
    for (index, &seat) in (0..engines).zip(&seats) {
        let latency = Duration::from_micros(if index % 10 == 9 { 300 } else { 100 });
        balance.begin(seat);
        balance.end(seat, Nanos(1), Ending::Answered(latency));
        for _ in 0..index % 5 {
            balance.begin(seat);
        }
    }
    (balance, function, seats)
}

fn decision(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("balance/decision");
    for engines in ENGINES {
        let (mut balance, function, _) = balance(engines);
        let mut now = Nanos(1);
        group.bench_function(BenchmarkId::from_parameter(engines), |bencher| {
            bencher.iter(|| {
                now = now + GAP;
                black_box(balance.choose(black_box(function), now))
            });
        });
    }
    group.finish();
}

/// What a call costs in all: decision, start, and the answer's part in the means.
fn call(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("balance/call");
    for engines in ENGINES {
        let (mut balance, function, _) = balance(engines);
        let mut now = Nanos(1);
        group.bench_function(BenchmarkId::from_parameter(engines), |bencher| {
            bencher.iter(|| {
                now = now + GAP;
                let seat = balance.choose(black_box(function), now).expect("there is room");
                balance.begin(seat);
                balance.end(seat, now, Ending::Answered(Duration::from_micros(100)));
            });
        });
    }
    group.finish();
}

/// One function of a load report; a seat fills and empties, which moves it in and out of the candidates.
fn report(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("balance/report");
    for engines in ENGINES {
        let (mut balance, _, seats) = balance(engines);
        let mut turn = 0_usize;
        group.bench_function(BenchmarkId::from_parameter(engines), |bencher| {
            bencher.iter(|| {
                turn += 1;
                let room = if turn & 1 == 0 { 0 } else { WINDOW };
                let load = Load { calls: 3, room, condition: Condition::Open };
                balance.report(seats[turn % seats.len()], black_box(&load));
            });
        });
    }
    group.finish();
}

criterion_group!(benches, decision, call, report);
criterion_main!(benches);
