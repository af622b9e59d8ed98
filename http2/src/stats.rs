//! What an operator sees of this door: counters of the process, as Prometheus text.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::ledger::Ledger;

/// Counters that the thread of this crate writes and any shard reads. Each is exact by itself and
/// publishes nothing else: all accesses are relaxed.
#[derive(Debug)]
pub struct Stats {
    accepted: AtomicU64,
    ended: AtomicU64,
    refused: AtomicU64,
    http: AtomicU64,
    grpc: AtomicU64,
    closed: [AtomicU64; Closing::ALL.len()],
    lines_dropped: AtomicU64,
    ledger: Arc<Ledger>,
}

/// Why a connection was closed from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// No request for too long.
    Idle,
    /// Its client took nothing of an answer for too long.
    Stalled,
    /// It held most when memory was short.
    Memory,
    /// The protocol was broken, a flood came, or something did not come in time.
    Fault,
    /// No TLS came about.
    Handshake,
}

/// What a request speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Plain requests.
    Http,
    /// Calls of gRPC.
    Grpc,
}

impl Closing {
    const ALL: [Closing; 5] =
        [Closing::Idle, Closing::Stalled, Closing::Memory, Closing::Fault, Closing::Handshake];

    fn name(self) -> &'static str {
        match self {
            Closing::Idle => "idle",
            Closing::Stalled => "stalled",
            Closing::Memory => "memory",
            Closing::Fault => "fault",
            Closing::Handshake => "handshake",
        }
    }
}

impl Stats {
    /// All zero.
    #[must_use]
    pub fn new(ledger: Arc<Ledger>) -> Stats {
        let zero = AtomicU64::default;
        Stats {
            accepted: zero(),
            ended: zero(),
            refused: zero(),
            http: zero(),
            grpc: zero(),
            closed: std::array::from_fn(|_| zero()),
            lines_dropped: zero(),
            ledger,
        }
    }

    pub(crate) fn accept(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn end(&self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn request(&self, protocol: Protocol) {
        let count = match protocol {
            Protocol::Http => &self.http,
            Protocol::Grpc => &self.grpc,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn close(&self, closing: Closing) {
        self.closed[closing as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// So many lines of the access log did not fit so far.
    pub(crate) fn count_dropped_lines(&self, count: u64) {
        self.lines_dropped.store(count, Ordering::Relaxed);
    }

    /// Writes all of them.
    pub fn write(&self, out: &mut String) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (accepted, ended) = (read(&self.accepted), read(&self.ended));
        let mut metric = |name: &str, kind: &str, help: &str, values: &[(&str, u64)]| {
            let name = format!("nightcore_http2_{name}");
            // Writing to a String cannot fail.
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (labels, value) in values {
                let _ = writeln!(out, "{name}{labels} {value}");
            }
        };
        let open = accepted.saturating_sub(ended);
        metric("connections_open", "gauge", "Connections open now.", &[("", open)]);
        metric("connections_accepted_total", "counter", "Connections accepted.", &[("", accepted)]);
        let refused = read(&self.refused);
        metric(
            "connections_refused_total",
            "counter",
            "Connections closed over the limit.",
            &[("", refused)],
        );
        let closed: Vec<(String, u64)> = Closing::ALL
            .iter()
            .map(|why| {
                (format!("{{reason=\"{}\"}}", why.name()), read(&self.closed[*why as usize]))
            })
            .collect();
        let closed: Vec<(&str, u64)> =
            closed.iter().map(|(labels, value)| (labels.as_str(), *value)).collect();
        metric("connections_closed_total", "counter", "Connections closed from here.", &closed);
        let requests =
            [("{protocol=\"http\"}", read(&self.http)), ("{protocol=\"grpc\"}", read(&self.grpc))];
        metric("requests_total", "counter", "Requests begun.", &requests);
        let dropped = read(&self.lines_dropped);
        let help = "Lines of the access log that did not fit.";
        metric("access_log_dropped_total", "counter", help, &[("", dropped)]);
        let held = self.ledger.held() as u64;
        metric("held_bytes", "gauge", "Bytes of requests and answers held.", &[("", held)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_has_its_line() {
        let stats = Stats::new(Ledger::new(10));
        stats.accept();
        stats.accept();
        stats.end();
        stats.close(Closing::Memory);
        stats.request(Protocol::Grpc);
        let mut text = String::new();
        stats.write(&mut text);
        for line in [
            "nightcore_http2_connections_open 1",
            "nightcore_http2_connections_accepted_total 2",
            "nightcore_http2_connections_closed_total{reason=\"memory\"} 1",
            "nightcore_http2_connections_closed_total{reason=\"idle\"} 0",
            "nightcore_http2_requests_total{protocol=\"grpc\"} 1",
            "nightcore_http2_access_log_dropped_total 0",
            "nightcore_http2_held_bytes 0",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} is not in\n{text}");
        }
    }
}
