//! Calls that come back to a pool whose workers all wait for them already: each must end with an
//! answer, not with its deadline.

use std::net::SocketAddr;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use super::record::Ended;

/// Of the pool of every function here.
pub const WORKERS: u16 = 4;
/// Ways for a call to end: served, no worker for it, too deep.
const ENDS: [u16; 3] = [200, 503, 508];
/// Longer than any deadline: who waits so long has no answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Calls made at once, again and again.
#[derive(Clone, Copy, Debug)]
pub struct Calls {
    /// In records and tables.
    pub name: &'static str,
    /// The function that is called.
    pub function: &'static str,
    /// With this.
    pub body: &'static str,
    /// So many at once.
    pub parallel: u32,
}

/// A chain that is longer than the pool, which no order of calls makes fit; and short ones that
/// together fill the first pool before any comes back to it, so often that they meet there.
pub const CALLS: [Calls; 2] = [
    Calls {
        name: "A calls itself 7 times, 4 at once",
        function: "recurse",
        body: r#"{"n":7}"#,
        parallel: 4,
    },
    Calls {
        name: "A calls B calls A, 100 times, 8 at once",
        function: "ping",
        body: concat!(
            r#"{"n":100,"function":"pong","#,
            r#""input":"{\"n\":1,\"function\":\"ping\",\"input\":\"{\\\"n\\\":0}\"}"}"#
        ),
        parallel: 8,
    },
];

/// The functions of all calls, and the libraries of these.
pub const FUNCTIONS: [(&str, &str); 3] =
    [("recurse", "librecurse.so"), ("ping", "libchain.so"), ("pong", "libchain.so")];

/// Makes the calls `runs` times, each time when all of the last have ended.
#[must_use]
pub fn run(address: SocketAddr, calls: &Calls, runs: u32, deadline: Duration) -> Ended {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(PATIENCE))
        .max_idle_connections_per_host(calls.parallel as usize)
        .build();
    let agent = ureq::Agent::new_with_config(config);
    let url = format!("http://{address}/function/{}", calls.function);
    let deadline_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
    let ready = Barrier::new(calls.parallel as usize);
    let call = || {
        ready.wait();
        let start = Instant::now();
        let answer = agent
            .post(&url)
            .header("X-Nightcore-Timeout-Ms", deadline_ms.to_string())
            .send(calls.body)
            // All of it, so that the connection can carry the next.
            .and_then(|mut answer| {
                answer.body_mut().read_to_vec().map(|_| answer.status().as_u16())
            });
        (answer.unwrap_or(0), start.elapsed())
    };
    let mut ended = Ended { deadline_ms, runs, ..Ended::default() };
    for _ in 0..runs {
        let answers: Vec<(u16, Duration)> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..calls.parallel).map(|_| scope.spawn(call)).collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            threads.into_iter().map(join).collect()
        });
        count(&mut ended, &answers, deadline);
    }
    ended
}

/// Adds the answers of one run.
fn count(ended: &mut Ended, answers: &[(u16, Duration)], deadline: Duration) {
    for &(status, took) in answers {
        *ended.statuses.entry(status).or_default() += 1;
        ended.late += u64::from(took > deadline);
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        ended.slowest_ms = ended.slowest_ms.max(took_ms);
    }
    let well = answers.iter().all(|(status, took)| ENDS.contains(status) && *took <= deadline);
    ended.well += u32::from(well);
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_run_ends_well_if_every_call_has_an_answer_in_time() {
        let mut ended = Ended::default();
        count(&mut ended, &[(200, MS), (503, 100 * MS), (508, MS)], 100 * MS);
        assert_eq!((ended.well, ended.late, ended.slowest_ms), (1, 0, 100));
        count(&mut ended, &[(200, MS), (504, 99 * MS)], 100 * MS);
        count(&mut ended, &[(200, 101 * MS)], 100 * MS);
        count(&mut ended, &[(0, MS)], 100 * MS);
        assert_eq!((ended.well, ended.late), (1, 1));
        assert_eq!(ended.statuses, [(0, 1), (200, 3), (503, 1), (504, 1), (508, 1)].into());
    }

    #[test]
    fn bodies_are_json_down_to_the_last_call() {
        for calls in CALLS {
            let mut input = calls.body.to_owned();
            let mut depth = 0;
            loop {
                let value: serde_json::Value = serde_json::from_str(&input).unwrap();
                depth += 1;
                let Some(inner) = value["input"].as_str() else { break };
                input = inner.to_owned();
            }
            assert_eq!(depth, if calls.function == "ping" { 3 } else { 1 });
        }
    }
}
