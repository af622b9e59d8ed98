//! What is called, and how soon an answer is worth something.

use std::time::Duration;

/// Of every open load: past it an answer is as good as none.
pub const DEADLINE: Duration = Duration::from_millis(100);

/// Calls of one kind, or of several in turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    /// In records and tables.
    pub name: &'static str,
    /// Function and body of each request.
    pub requests: &'static [(&'static str, &'static str)],
}

const SPIN: (&str, &str) = ("spin", r#"{"us":1000}"#);
const SLEEP: (&str, &str) = ("sleep", r#"{"ms":10}"#);
const MIXED: (&str, &str) = ("mixed", r#"{"spin_us":500,"sleep_us":5000}"#);

/// All of them. A single worker is best for the first, many are for the second; the third has two
/// functions that need different numbers on one core, the fourth one function that needs some.
pub const WORKLOADS: [Workload; 4] = [
    Workload { name: "spin 1 ms", requests: &[SPIN] },
    Workload { name: "sleep 10 ms", requests: &[SLEEP] },
    Workload { name: "spin and sleep", requests: &[SPIN, SLEEP] },
    Workload { name: "mixed", requests: &[MIXED] },
];

/// The functions that they call, and the libraries of these.
pub const FUNCTIONS: [(&str, &str); 3] =
    [("spin", "libspin.so"), ("sleep", "libsleep.so"), ("mixed", "libmixed.so")];
