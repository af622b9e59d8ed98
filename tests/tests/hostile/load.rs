//! Clients of honest functions, who are not to notice the liars beside them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nightcore_tests::{Connection, Stack, post};

#[derive(Clone, Copy, Debug)]
#[expect(dead_code, reason = "all of it is printed")]
pub struct Times {
    pub calls: usize,
    pub p50: Duration,
    pub p99: Duration,
    pub max: Duration,
}

/// What the clients of honest functions have measured so far, by phase.
pub struct Load {
    phase: AtomicU8,
    times: [Mutex<Vec<Duration>>; 2],
}

impl Load {
    pub fn calls(&self) -> usize {
        let phase = usize::from(self.phase.load(Ordering::Relaxed));
        self.times[phase].lock().expect("no client has failed").len()
    }

    pub fn second_phase(&self) {
        self.phase.store(1, Ordering::Relaxed);
    }

    fn record(&self, time: Duration) -> bool {
        let phase = usize::from(self.phase.load(Ordering::Relaxed));
        let Some(times) = self.times.get(phase) else { return false };
        times.lock().expect("no client has failed").push(time);
        true
    }
}

/// Ends the clients even if the test panics.
struct End<'a>(&'a Load);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.phase.store(2, Ordering::Relaxed);
    }
}

/// Calls honest functions at a steady pace during `body`; each must be answered as it should.
pub fn with_load(stack: &Stack, body: impl FnOnce(&Load)) -> [Times; 2] {
    let load = Load { phase: AtomicU8::new(0), times: Default::default() };
    thread::scope(|scope| {
        for (function, input) in
            [("echo", b"steady".as_slice()), ("echo", &[b'x'; 4096]), ("chain", b"{\"n\": 3}")]
        {
            let mut connection: Connection = stack.connect();
            let (load, request) = (&load, post(&format!("/function/{function}"), input));
            scope.spawn(move || {
                loop {
                    let start = Instant::now();
                    let answer = connection.exchange(&request);
                    let time = start.elapsed();
                    assert!(function == "chain" || answer.ok() == input);
                    answer.ok();
                    if !load.record(time) {
                        return;
                    }
                    // The pace of the load: about a thousand calls a second in all.
                    thread::sleep(Duration::from_millis(2));
                }
            });
        }
        let _end = End(&load);
        body(&load);
    });
    load.times.map(|times| Times::of(times.into_inner().expect("no client has failed")))
}

impl Times {
    fn of(mut times: Vec<Duration>) -> Times {
        times.sort_unstable();
        let at = |percent: usize| times[(times.len() - 1) * percent / 100];
        Times { calls: times.len(), p50: at(50), p99: at(99), max: at(100) }
    }
}
