//! What became of each request of a run, for figures that need more than a distribution: answers
//! within a deadline, percentiles over time.

use std::io::{self, Write};
use std::time::Duration;

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When it was due, from the beginning of the recorded time; in a closed loop, sent.
    pub due: Duration,
    /// From then to the end of its answer, or to its failure.
    pub latency: Duration,
    /// The answer's status; nothing where no complete answer came.
    pub status: Option<u16>,
    /// Which request it was: 0 is the plan's own, then those of [`Plan::also`](super::Plan::also).
    pub request: usize,
}

/// Writes CSV in microseconds with a header; status 0 stands for no answer.
pub fn write_csv(entries: &[Entry], out: impl Write) -> io::Result<()> {
    let mut out = io::BufWriter::new(out);
    writeln!(out, "due_us,latency_us,status,request")?;
    for entry in entries {
        let (due, latency) = (entry.due.as_micros(), entry.latency.as_micros());
        writeln!(out, "{due},{latency},{},{}", entry.status.unwrap_or(0), entry.request)?;
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_four_figures_of_a_request() {
        let entry = Entry {
            due: Duration::from_micros(1500),
            latency: Duration::from_nanos(2_000_900),
            status: Some(503),
            request: 1,
        };
        let mut bytes = Vec::new();
        write_csv(&[entry, Entry { status: None, ..entry }], &mut bytes).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(text, "due_us,latency_us,status,request\n1500,2000,503,1\n1500,2000,0,1\n");
    }
}
