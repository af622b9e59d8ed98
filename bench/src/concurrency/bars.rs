//! What is asked of a managed pool, and whether it is so.
//!
//! Ratios are taken within each round and only then summed up, by their median: a neighbour that
//! slows a round slows both sides of it.

use std::collections::BTreeSet;

use super::figures::Figures;
use super::pool::Pool;
use super::record::Record;
use super::recursion::CALLS;
use super::step::median;
use crate::report::bars::Bar;

/// Where the tails are compared, in percent of the capacity.
const TAIL_PERCENT: u32 = 80;
/// Where too much is asked, in percent of the capacity.
const OVERLOAD_PERCENT: u32 = 300;
/// Of the best fixed pool's throughput.
const THROUGHPUT: Bar = Bar::AtLeast(0.97);
/// Of the p99 of the fixed pool with the best one.
const TAIL: Bar = Bar::AtMost(1.2);
/// Of what any pool reaches at any load, under too much of it.
const GOODPUT: Bar = Bar::AtLeast(0.9);
/// From the step to rest, in ms.
const BACK_MS: Bar = Bar::AtMost(1000.0);
/// Of the recursive runs.
const ENDED_WELL: Bar = Bar::AtLeast(1.0);
/// Requests.
const FAILED: Bar = Bar::AtMost(0.0);

/// Where the managed pool is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A ratio or a figure.
    Finite(f64),
    /// Beyond any bar: a tail that has no end, a rest that is never reached.
    Endless,
    /// The run did not get so far.
    NotMeasured,
}

/// A bar, and where the managed pool is.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// A workload, or recursive calls.
    pub of: String,
    /// What is compared with what.
    pub what: String,
    /// Where it is.
    pub value: Value,
    /// What is asked.
    pub bar: Bar,
}

impl Verdict {
    /// Whether it is so.
    #[must_use]
    pub fn is_met(&self) -> bool {
        matches!(self.value, Value::Finite(value) if self.bar.is_met(value))
    }
}

impl Value {
    /// The median of the rounds, in some of which it was endless.
    fn median(rounds: &[Option<f64>]) -> Value {
        match (rounds, median(rounds)) {
            ([], _) => Value::NotMeasured,
            (_, Some(value)) => Value::Finite(value),
            (_, None) => Value::Endless,
        }
    }
}

/// The workloads that were measured, in that order.
#[must_use]
pub fn workloads(records: &[Record]) -> Vec<&str> {
    let mut names = Vec::new();
    for record in records {
        if let Record::Load { workload, .. } = record
            && !names.contains(&workload.as_str())
        {
            names.push(workload);
        }
    }
    names
}

/// The pools that a workload was measured with, fixed ones first, and its loads: those of a pool in
/// each round.
#[must_use]
pub fn pools(records: &[Record], of: &str) -> BTreeSet<Pool> {
    let pools = records.iter().filter_map(|record| match record {
        Record::Load { workload, pool, .. } if workload == of => Some(*pool),
        _ => None,
    });
    pools.collect()
}

/// The figures of a pool at a load (none for the closed loop), by round.
#[must_use]
pub fn loads<'a>(
    records: &'a [Record],
    of: &str,
    by: Pool,
    at: Option<u32>,
) -> Vec<(u32, &'a Figures)> {
    let loads = records.iter().filter_map(|record| match record {
        Record::Load { round, workload, pool, percent, figures }
            if workload == of && *pool == by && *percent == at =>
        {
            Some((*round, figures))
        }
        _ => None,
    });
    loads.collect()
}

/// The median over the rounds of one figure of them.
#[must_use]
pub fn median_of(
    loads: &[(u32, &Figures)],
    figure: impl Fn(&Figures) -> Option<f64>,
) -> Option<f64> {
    median(&loads.iter().map(|(_, figures)| figure(figures)).collect::<Vec<_>>())
}

/// What the best fixed pool answers in a closed loop: requests a second, median over the rounds.
#[must_use]
pub fn capacity(records: &[Record], workload: &str) -> Option<f64> {
    let best = best_fixed(records, workload)?;
    throughput(records, workload, best)
}

/// The fixed pool that answers most in a closed loop.
#[must_use]
pub fn best_fixed(records: &[Record], workload: &str) -> Option<Pool> {
    best(records, workload, |pool| throughput(records, workload, pool))
}

/// Every bar for every workload that was measured.
#[must_use]
pub fn verdicts(records: &[Record]) -> Vec<Verdict> {
    let workloads = workloads(records);
    let by_workload = |bar: fn(&[Record], &str) -> Verdict| {
        workloads.iter().map(move |workload| bar(records, workload))
    };
    by_workload(throughput_verdict)
        .chain(by_workload(tail_verdict))
        .chain(by_workload(goodput_verdict))
        .chain(by_workload(step_verdict))
        .chain(recursion_verdicts(records))
        .chain([failed_verdict(records)])
        .collect()
}

fn throughput_verdict(records: &[Record], workload: &str) -> Verdict {
    let best = best_fixed(records, workload);
    verdict(
        workload,
        format!("closed loop: throughput over that of {}", named(best)),
        best.map_or(Value::NotMeasured, |best| {
            ratio(records, workload, best, None, |figures| Some(figures.throughput))
        }),
        THROUGHPUT,
    )
}

fn tail_verdict(records: &[Record], workload: &str) -> Verdict {
    let p99 = |figures: &Figures| figures.p99_all_us;
    let at = Some(TAIL_PERCENT);
    // The least is the best.
    let best = best(records, workload, |pool| {
        median_of(&loads(records, workload, pool, at), p99).map(|p99| -p99)
    });
    verdict(
        workload,
        format!("{TAIL_PERCENT}%: p99 of all requests over that of {}", named(best)),
        best.map_or(Value::NotMeasured, |best| ratio(records, workload, best, at, p99)),
        TAIL,
    )
}

fn goodput_verdict(records: &[Record], workload: &str) -> Verdict {
    let goodput = |pool: Pool, percent: u32| {
        let loads = loads(records, workload, pool, Some(percent));
        median_of(&loads, |figures| Some(figures.goodput))
    };
    let percents: BTreeSet<u32> = records
        .iter()
        .filter_map(|record| match record {
            Record::Load { percent, .. } => *percent,
            _ => None,
        })
        .collect();
    let of_pool = |pool| percents.iter().filter_map(move |&percent| goodput(pool, percent));
    let peak = pools(records, workload).into_iter().flat_map(of_pool).max_by(f64::total_cmp);
    let value = goodput(Pool::Managed, OVERLOAD_PERCENT).zip(peak.filter(|&peak| peak > 0.0));
    verdict(
        workload,
        format!("{OVERLOAD_PERCENT}%: goodput over the peak of any pool at any load"),
        value.map_or(Value::NotMeasured, |(goodput, peak)| Value::Finite(goodput / peak)),
        GOODPUT,
    )
}

fn step_verdict(records: &[Record], of: &str) -> Verdict {
    let backs = records.iter().filter_map(|record| match record {
        Record::Step { workload, pool: Pool::Managed, recovery, .. } if workload == of => {
            Some(recovery.back_ms)
        }
        _ => None,
    });
    let back_ms = Value::median(&backs.collect::<Vec<_>>());
    verdict(of, "step: ms until p99 is at rest".to_owned(), back_ms, BACK_MS)
}

fn recursion_verdicts(records: &[Record]) -> impl Iterator<Item = Verdict> {
    let well = |name: &str| {
        records.iter().find_map(|record| match record {
            Record::Recursion { calls, pool: Pool::ManagedUpTo(_), runs } if calls == name => {
                Some(f64::from(runs.well) / f64::from(runs.runs.max(1)))
            }
            _ => None,
        })
    };
    CALLS.iter().map(move |calls| {
        let share = well(calls.name).map_or(Value::NotMeasured, Value::Finite);
        verdict(calls.name, "share of the runs that ended well".to_owned(), share, ENDED_WELL)
    })
}

fn failed_verdict(records: &[Record]) -> Verdict {
    let failed: Vec<u64> = records
        .iter()
        .filter_map(|record| match record {
            Record::Load { pool: Pool::Managed, figures, .. } => Some(figures.failed),
            _ => None,
        })
        .collect();
    let value = match &failed[..] {
        [] => Value::NotMeasured,
        failed => Value::Finite(failed.iter().sum::<u64>() as f64),
    };
    verdict("all loads", "requests neither served nor refused".to_owned(), value, FAILED)
}

fn verdict(of: &str, what: String, value: Value, bar: Bar) -> Verdict {
    Verdict { of: of.to_owned(), what, value, bar }
}

fn named(pool: Option<Pool>) -> String {
    pool.map_or("a fixed pool".to_owned(), |pool| pool.to_string())
}

fn throughput(records: &[Record], workload: &str, pool: Pool) -> Option<f64> {
    median_of(&loads(records, workload, pool, None), |figures| Some(figures.throughput))
}

/// The fixed pool of the greatest score.
fn best(records: &[Record], workload: &str, score: impl Fn(Pool) -> Option<f64>) -> Option<Pool> {
    pools(records, workload)
        .into_iter()
        .filter(|pool| matches!(pool, Pool::Fixed(_)))
        .filter_map(|pool| Some((pool, score(pool)?)))
        .max_by(|(_, one), (_, other)| one.total_cmp(other))
        .map(|(pool, _)| pool)
}

/// The managed pool's figure over that of `best`, the median over the rounds. Where ours is endless
/// in a round, so is the ratio; a round in which only the other's is has no ratio.
fn ratio(
    records: &[Record],
    workload: &str,
    best: Pool,
    at: Option<u32>,
    figure: impl Fn(&Figures) -> Option<f64>,
) -> Value {
    let theirs = loads(records, workload, best, at);
    let ratios =
        loads(records, workload, Pool::Managed, at).into_iter().filter_map(|(round, ours)| {
            let (_, theirs) = theirs.iter().find(|(other, _)| *other == round)?;
            let theirs = figure(theirs).filter(|&value| value > 0.0)?;
            Some(figure(ours).map(|ours| ours / theirs))
        });
    Value::median(&ratios.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::concurrency::record::Ended;
    use crate::concurrency::step::Recovery;
    use crate::concurrency::tests::figures;

    const NAME: &str = "spin";

    fn load(
        round: u32,
        pool: Pool,
        percent: Option<u32>,
        per_second: f64,
        p99_us: Option<f64>,
    ) -> Record {
        let (throughput, goodput) = (per_second, per_second);
        let figures = Figures { throughput, goodput, p99_all_us: p99_us, ..figures() };
        Record::Load { round, workload: NAME.to_owned(), pool, percent, figures }
    }

    fn value(records: &[Record], bar: Bar) -> Value {
        let verdicts = verdicts(records);
        verdicts.iter().find(|verdict| verdict.bar == bar).expect("every bar is there").value
    }

    #[test]
    fn throughput_is_compared_within_rounds_with_the_best_fixed_pool() {
        let records = [
            load(1, Pool::Fixed(1), None, 500.0, None),
            load(1, Pool::Fixed(4), None, 1000.0, None),
            load(1, Pool::Managed, None, 990.0, None),
            load(2, Pool::Managed, None, 500.0, None),
            load(2, Pool::Fixed(4), None, 500.0, None),
            load(3, Pool::Fixed(4), None, 1000.0, None),
            load(3, Pool::Managed, None, 100.0, None),
        ];
        assert_eq!(best_fixed(&records, NAME), Some(Pool::Fixed(4)));
        assert_eq!(capacity(&records, NAME), Some(1000.0));
        assert_eq!(value(&records, THROUGHPUT), Value::Finite(0.99));
    }

    #[test]
    fn tails_are_compared_with_the_best_tail_and_an_endless_one_misses() {
        let at = Some(TAIL_PERCENT);
        let fixed = [
            load(1, Pool::Fixed(1), at, 1.0, None),
            load(1, Pool::Fixed(4), at, 1.0, Some(20.0)),
            load(1, Pool::Fixed(8), at, 1.0, Some(10.0)),
        ];
        let with = |ours| [&fixed[..], &[load(1, Pool::Managed, at, 1.0, ours)]].concat();
        assert_eq!(value(&with(Some(11.0)), TAIL), Value::Finite(1.1));
        let endless = verdicts(&with(None));
        let tail = endless.iter().find(|verdict| verdict.bar == TAIL).unwrap();
        assert_eq!((tail.value, tail.is_met()), (Value::Endless, false));
        assert!(tail.what.contains("fixed 8"), "{tail:?}");
        assert_eq!(value(&fixed, TAIL), Value::NotMeasured);
    }

    #[test]
    fn goodput_under_overload_is_compared_with_the_peak_of_any_pool() {
        let records = [
            load(1, Pool::Managed, Some(50), 500.0, None),
            load(1, Pool::Managed, Some(150), 1000.0, None),
            load(1, Pool::Managed, Some(OVERLOAD_PERCENT), 800.0, None),
            load(1, Pool::Fixed(1), Some(150), 900.0, None),
        ];
        assert_eq!(value(&records, GOODPUT), Value::Finite(0.8));
        let better = [&records[..], &[load(1, Pool::Fixed(4), Some(50), 1600.0, None)]].concat();
        assert_eq!(value(&better, GOODPUT), Value::Finite(0.5));
    }

    #[test]
    fn a_step_is_judged_by_the_median_of_the_rounds_of_the_managed_pool() {
        let step = |pool, back_ms| Record::Step {
            round: 1,
            workload: NAME.to_owned(),
            pool,
            per_second: (1.0, 9.0),
            recovery: Recovery { windows_us: Vec::new(), rest_us: None, back_ms },
        };
        let records = [
            load(1, Pool::Managed, None, 1.0, None),
            step(Pool::Managed, Some(300.0)),
            step(Pool::Managed, None),
            step(Pool::Managed, Some(500.0)),
            step(Pool::Fixed(4), Some(0.0)),
        ];
        assert_eq!(value(&records, BACK_MS), Value::Finite(500.0));
    }

    #[test]
    fn one_recursive_run_that_does_not_end_well_misses() {
        let recursion = |pool, well| Record::Recursion {
            calls: CALLS[0].name.to_owned(),
            pool,
            runs: Ended { runs: 100, well, ..Ended::default() },
        };
        let records = [recursion(Pool::Fixed(4), 0), recursion(Pool::ManagedUpTo(4), 99)];
        let verdicts = verdicts(&records);
        let of = |calls: &str| verdicts.iter().find(|verdict| verdict.of == calls).unwrap();
        assert_eq!(of(CALLS[0].name).value, Value::Finite(0.99));
        assert!(!of(CALLS[0].name).is_met());
        assert_eq!(of(CALLS[1].name).value, Value::NotMeasured);
    }
}
