//! What a shard publishes of a function before it sleeps, once a turn for each function that changed, and
//! what a reader pays for it.

use std::hint::black_box;

use criterion::Criterion;
use engine::core::{Core, Limits};
use engine::stats::Stats;
use reactor::clock::Nanos;

use super::core::spec;

pub fn bench(criterion: &mut Criterion) {
    let mut core = Core::new(Limits::default());
    let function = core.add_function(spec());
    let stats = Stats::new(1, 2);
    criterion.bench_function("stats/publish", |bencher| {
        bencher.iter(|| {
            let core = black_box(&core);
            stats.publish(0, function, &core.snapshot(function));
            stats.publish_times(0, function, core.times(function));
        });
    });
    criterion.bench_function("stats/totals", |bencher| {
        bencher.iter(|| black_box(&stats).totals(function, Nanos(0)));
    });
}
