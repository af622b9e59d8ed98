//! The gateway's own counters, as Prometheus text.

use std::fmt::Write;

const CODE_FIRST: u16 = 200;
const CODES: usize = 400;

/// Counters of one shard. Written and read by the shard's thread alone.
pub(crate) struct Metrics {
    pub accepted: u64,
    pub refused: u64,
    pub requests: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Lines that did not fit into the queue of the access log.
    pub access_log_dropped: u64,
    /// By status code minus [`CODE_FIRST`].
    answers: Box<[u64; CODES]>,
}

impl Metrics {
    pub(crate) fn new() -> Metrics {
        Metrics {
            accepted: 0,
            refused: 0,
            requests: 0,
            bytes_in: 0,
            bytes_out: 0,
            access_log_dropped: 0,
            answers: Box::new([0; CODES]),
        }
    }

    pub(crate) fn answered(&mut self, status: u16) {
        let index = usize::from(status.saturating_sub(CODE_FIRST));
        if let Some(count) = self.answers.get_mut(index) {
            *count += 1;
        }
    }

    pub(crate) fn write(&self, shard: u16, open: usize, out: &mut String) {
        let mut metric = |name: &str, kind: &str, help: &str, value: u64| {
            // Writing to a String cannot fail.
            let _ = writeln!(
                out,
                "# HELP nightcore_gateway_{name} {help}\n# TYPE nightcore_gateway_{name} {kind}\n\
                 nightcore_gateway_{name}{{shard=\"{shard}\"}} {value}"
            );
        };
        metric("connections_open", "gauge", "Connections open now.", open as u64);
        metric("connections_accepted_total", "counter", "Connections accepted.", self.accepted);
        metric(
            "connections_refused_total",
            "counter",
            "Connections refused over the limit.",
            self.refused,
        );
        metric("requests_total", "counter", "Request heads read.", self.requests);
        metric("received_bytes_total", "counter", "Bytes received.", self.bytes_in);
        metric("sent_bytes_total", "counter", "Bytes sent.", self.bytes_out);
        metric(
            "access_log_dropped_total",
            "counter",
            "Lines that the access log did not take in time.",
            self.access_log_dropped,
        );
        let name = "nightcore_gateway_answers_total";
        let _ = writeln!(out, "# HELP {name} Answers by status code.\n# TYPE {name} counter");
        for (code, count) in (CODE_FIRST..).zip(self.answers.iter()) {
            if *count > 0 {
                let class = code / 100;
                let _ = writeln!(
                    out,
                    "{name}{{shard=\"{shard}\",class=\"{class}xx\",code=\"{code}\"}} {count}"
                );
            }
        }
    }
}
