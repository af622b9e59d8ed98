//! The bare channel: two processes, one at each end of the real thing (lanes, arenas, sleep flags,
//! eventfds), without engine core, envelopes and functions.
//!
//! - `engine_end`: this process; waits for the worker in one of three ways;
//! - `worker_end`: the other process; waits as the runtime library does;
//! - `measure`: round trips, one-way latency, one-way throughput.
//!
//! Every payload is copied in from private memory by its sender and copied out by its receiver.

mod engine_end;
mod measure;
mod worker_end;

use ipc::Geometry;

use crate::case::{self, Case, Error, Selection};
use crate::process::Placement;
use engine_end::Waiting;
use measure::Direction;

/// Bytes: a bare message, the two sizes of the bars, and what goes through extents.
const SIZES: [u32; 8] = [32, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20];
/// The runtime's own limit, unless configured.
const PAYLOAD_MAX: u32 = 16 << 20;
/// What is compared with the bar.
const BAR_CASE: &str = "channel/rtt_same_core_1024";
/// The p50 of iceoryx2's request and response with event wake-ups on the build machine, and how
/// much of it ours may take.
const ICEORYX2_US: f64 = 13.5;
const BAR_SHARE: f64 = 0.5;

/// What to measure of the channel.
#[derive(clap::Args, Clone, Debug)]
pub struct Arguments {
    /// Bytes of a payload.
    #[arg(
        long, value_name = "BYTES", value_delimiter = ',', default_values_t = SIZES,
        value_parser = clap::value_parser!(u32).range(8..=i64::from(PAYLOAD_MAX)),
    )]
    pub sizes: Vec<u32>,
    #[command(flatten)]
    #[allow(missing_docs, reason = "it would be the description of all its options")]
    pub selection: Selection,
}

/// Measures and prints what `arguments` name.
///
/// # Errors
/// When nothing has a selected name, or a measurement fails.
pub fn run(arguments: &Arguments) -> Result<(), Error> {
    let geometry = Geometry::new(1, PAYLOAD_MAX)?;
    let samples = case::run(&cases(geometry, &arguments.sizes), &arguments.selection)?;
    if let Some(sample) = samples.iter().find(|sample| sample.case == BAR_CASE) {
        eprintln!(
            "bar: 1 KiB there and back on one core took {:.2} us; iceoryx2 takes {ICEORYX2_US} us \
             on the build machine, and ours may take {BAR_SHARE} of it: {:.2} us",
            sample.p50_us,
            ICEORYX2_US * BAR_SHARE
        );
    }
    Ok(())
}

fn cases(geometry: Geometry, sizes: &[u32]) -> Vec<Case> {
    const PINNED: [Placement; 2] = [Placement::SameCore, Placement::AcrossCores];
    let mut cases = Vec::new();
    for (name, waiting) in [("", Waiting::Epoll), ("_reactor", Waiting::Reactor)] {
        for placement in PINNED {
            cases.extend(sizes.iter().map(|&size| {
                Case::new(
                    format!("channel/rtt{name}_{}_{size}", placement.name()),
                    format!("round trip{}, {}, {size} B", waiting.title(), placement.title()),
                    move |case, rounds| {
                        measure::round_trips(case, rounds, geometry, waiting, placement, size)
                    },
                )
            }));
        }
    }
    // On one core, each would spin until its time is up.
    cases.extend(sizes.iter().map(|&size| {
        let (waiting, placement) = (Waiting::Spin, Placement::AcrossCores);
        Case::new(
            format!("channel/rtt_spin_{}_{size}", placement.name()),
            format!("round trip{}, {}, {size} B", waiting.title(), placement.title()),
            move |case, rounds| {
                measure::round_trips(case, rounds, geometry, waiting, placement, size)
            },
        )
    }));
    for direction in [Direction::ToWorker, Direction::ToEngine] {
        for placement in PINNED {
            let (way, place) = (direction.name(), placement.name());
            let (title, seats) = (direction.title(), placement.title());
            cases.extend(sizes.iter().map(|&size| {
                Case::timed(
                    format!("channel/latency_{way}_{place}_{size}"),
                    format!("latency {title}, {seats}, {size} B"),
                    move |rounds| measure::latency(rounds, geometry, direction, placement, size),
                )
            }));
            cases.extend(sizes.iter().map(|&size| {
                Case::new(
                    format!("channel/throughput_{way}_{place}_{size}"),
                    format!("throughput {title}, {seats}, {size} B"),
                    move |case, rounds| {
                        measure::throughput(case, rounds, geometry, direction, placement, size)
                    },
                )
            }));
        }
    }
    cases
}
