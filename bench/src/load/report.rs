//! What a run has seen, and the forms it is written in: a [`Sample`], a table, a `.hgrm` file.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Write};
use std::io;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::log::Entry;
use super::tally::Tally;
use super::{Errors, Pace, Plan};
use crate::sample::Sample;

/// Of the table for humans.
const TABLE_PERCENTILES: [f64; 8] = [50.0, 75.0, 90.0, 99.0, 99.9, 99.99, 99.999, 100.0];
/// Lines of a `.hgrm` file from one halving of the rest to the next, as in HdrHistogram's tools.
const HGRM_TICKS_PER_HALF: u32 = 5;
/// What three significant digits take: the power of two from 2,000 on.
const HGRM_SUB_BUCKETS: u32 = 2048;

/// What a run has seen.
#[derive(Clone, Debug)]
pub struct Report {
    /// Latencies of served requests in nanoseconds.
    pub times: Histogram<u64>,
    /// The same from the moment of sending, which forgets who queued for a connection: what a
    /// closed loop would have seen. Empty in a closed loop, where `times` is that.
    pub from_sent: Histogram<u64>,
    /// How late requests were sent, in nanoseconds: from the moment a request was due, or its
    /// connection free if that was later. The generator's own error; empty in a closed loop.
    pub late: Histogram<u64>,
    /// Requests sent or tried to send in the recorded time.
    pub requests: u64,
    /// Those of them that were not served.
    pub errors: Errors,
    /// Answers of another status than 2xx, by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Each request by the moment it was due; empty unless the plan keeps them.
    pub log: Vec<Entry>,
    /// Requests due but never sent, since their connections waited for answers until the end. More
    /// than a few of these, and the target does not sustain the rate.
    pub unsent: u64,
    /// Connections made again after one had ended.
    pub reconnects: u64,
    /// Bytes received, heads included.
    pub bytes: u64,
    /// The recorded time.
    pub elapsed: Duration,
    /// CPU time of the generator's threads in it.
    pub cpu: Duration,
    /// As planned.
    pub connections: u32,
    /// As planned.
    pub threads: u32,
    /// As planned.
    pub pace: Pace,
}

impl Report {
    pub(super) fn new(plan: &Plan, mut total: Tally, elapsed: Duration) -> Report {
        total.log.sort_by_key(|entry| entry.due);
        Report {
            requests: total.times.len() + total.errors.total(),
            times: total.times,
            from_sent: total.from_sent,
            late: total.late,
            errors: total.errors,
            statuses: total.statuses,
            log: total.log,
            unsent: total.unsent,
            reconnects: total.reconnects,
            bytes: total.bytes,
            elapsed,
            cpu: total.cpu,
            connections: plan.connections,
            threads: plan.threads,
            pace: plan.pace,
        }
    }

    /// Served requests a second.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        per(self.times.len() as f64, self.elapsed.as_secs_f64())
    }

    /// Requests a second that were due, at the end; none in a closed loop.
    #[must_use]
    pub fn rate(&self) -> Option<f64> {
        match self.pace {
            Pace::Closed => None,
            Pace::Constant { per_second } => Some(per_second),
            Pace::Step { after, .. } => Some(after),
        }
    }

    /// CPU time of the generator for each request, in microseconds.
    #[must_use]
    pub fn cpu_us_per_request(&self) -> f64 {
        per(self.cpu.as_secs_f64() * 1e6, self.requests as f64)
    }

    /// The run as a sample. `extra` holds `requests`, `errors`, each kind of them as `errors_KIND`,
    /// statuses other than 2xx as `status_NUMBER`, `unsent`, `reconnects`, `bytes_per_second`,
    /// `connections`, `threads`, `cpu_us_client` (the generator's for each request) and, at a rate,
    /// `rate` (the last one), `late_us_p50`, `late_us_p99`, `sent_us_p50` and `sent_us_p99` (latency
    /// from the moment of sending).
    #[must_use]
    pub fn sample(&self, case: &str) -> Sample {
        let mut sample = Sample::new(case, &self.times);
        sample.rps = Some(self.per_second());
        let mut put = |name: &str, value: f64| sample.extra.insert(name.to_owned(), value);
        put("requests", self.requests as f64);
        put("errors", self.errors.total() as f64);
        for (kind, count) in self.errors.named() {
            put(&format!("errors_{kind}"), count as f64);
        }
        for (status, &count) in &self.statuses {
            put(&format!("status_{status}"), count as f64);
        }
        put("unsent", self.unsent as f64);
        put("reconnects", self.reconnects as f64);
        put("bytes_per_second", per(self.bytes as f64, self.elapsed.as_secs_f64()));
        put("connections", self.connections.into());
        put("threads", self.threads.into());
        put("cpu_us_client", self.cpu_us_per_request());
        if let Some(rate) = self.rate() {
            put("rate", rate);
            for (name, times) in [("late", &self.late), ("sent", &self.from_sent)] {
                put(&format!("{name}_us_p50"), times.value_at_quantile(0.5) as f64 / 1e3);
                put(&format!("{name}_us_p99"), times.value_at_quantile(0.99) as f64 / 1e3);
            }
        }
        sample
    }
}

fn per(value: f64, divisor: f64) -> f64 {
    if divisor > 0.0 { value / divisor } else { 0.0 }
}

/// The table for humans.
impl Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pace = match self.pace {
            Pace::Closed => "closed loop".to_owned(),
            Pace::Constant { per_second } => format!("{per_second} requests/s"),
            Pace::Step { before, at, after } => {
                format!("{before} requests/s, after {} s {after}", at.as_secs_f64())
            }
        };
        let (connections, threads) = (self.connections, self.threads);
        let seconds = self.elapsed.as_secs_f64();
        writeln!(out, "{pace}, {connections} connections, {threads} threads, {seconds:.1} s")?;
        let megabytes = per(self.bytes as f64 / 1e6, seconds);
        let served = self.times.len();
        writeln!(
            out,
            "served      {served:>12} {:>12.1}/s {megabytes:.1} MB/s",
            self.per_second()
        )?;
        writeln!(out, "errors      {:>12}", self.errors.total())?;
        for (kind, count) in self.errors.named().into_iter().filter(|&(_, count)| count > 0) {
            writeln!(out, "  {kind:<10}{count:>12}")?;
        }
        for (status, count) in &self.statuses {
            writeln!(out, "    {status:<8}{count:>12}")?;
        }
        if self.unsent > 0 {
            let reason = "due, but their connections waited for answers until the end";
            writeln!(out, "never sent  {:>12} {reason}", self.unsent)?;
        }
        if self.reconnects > 0 {
            writeln!(out, "reconnects  {:>12}", self.reconnects)?;
        }
        for percentile in TABLE_PERCENTILES {
            let name = if percentile < 100.0 { format!("p{percentile}") } else { "max".to_owned() };
            let us = self.times.value_at_percentile(percentile) as f64 / 1e3;
            writeln!(out, "{name:<12}{us:>12.1} us")?;
        }
        if self.rate().is_some() {
            for (name, times) in [("from sent", &self.from_sent), ("sent late", &self.late)] {
                let us = |quantile| times.value_at_quantile(quantile) as f64 / 1e3;
                writeln!(out, "{name:<12}{:>12.1} us p50, {:.1} us p99", us(0.5), us(0.99))?;
            }
        }
        writeln!(out, "own CPU     {:>12.2} us a request", self.cpu_us_per_request())
    }
}

/// Writes the distribution as HdrHistogram's tools do and its plotters read it: lines of value in
/// microseconds, percentile from 0 to 1, values up to there, 1/(1-percentile).
pub fn write_hgrm(times: &Histogram<u64>, mut out: impl io::Write) -> io::Result<()> {
    let mut text = String::new();
    hgrm(times, &mut text).map_err(io::Error::other)?;
    out.write_all(text.as_bytes())
}

fn hgrm(times: &Histogram<u64>, out: &mut String) -> fmt::Result {
    writeln!(
        out,
        "{:>12} {:>14} {:>10} {:>14}\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    )?;
    let mut total = 0;
    for step in times.iter_quantiles(HGRM_TICKS_PER_HALF) {
        total += step.count_since_last_iteration();
        let us = step.value_iterated_to() as f64 / 1e3;
        let quantile = step.quantile_iterated_to();
        write!(out, "{us:>12.3} {quantile:>14.12} {total:>10}")?;
        match 1.0 - quantile {
            rest if rest > 0.0 => writeln!(out, " {:>14.2}", 1.0 / rest)?,
            _ => writeln!(out, " {:>14}", "inf")?,
        }
    }
    let (mean, deviation) = (times.mean() / 1e3, times.stdev() / 1e3);
    writeln!(out, "#[Mean    = {mean:>12.3}, StdDeviation   = {deviation:>12.3}]")?;
    let max = times.max() as f64 / 1e3;
    writeln!(out, "#[Max     = {max:>12.3}, Total count    = {:>12}]", times.len())?;
    let (buckets, sub_buckets) = (times.buckets(), HGRM_SUB_BUCKETS);
    writeln!(out, "#[Buckets = {buckets:>12}, SubBuckets     = {sub_buckets:>12}]")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Keep;
    use crate::load::tally::record;

    fn plan(pace: Pace) -> Plan {
        Plan {
            target: "http://127.0.0.1:1/".parse().unwrap(),
            method: "GET".to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
            also: Vec::new(),
            connections: 3,
            pace,
            duration: Duration::from_secs(2),
            warm_up: Duration::ZERO,
            timeout: Duration::from_secs(1),
            threads: 1,
            keep: Keep::Sums,
        }
    }

    fn report(pace: Pace) -> Report {
        let mut total = Tally::new();
        for us in 1..=1000 {
            record(&mut total.times, Duration::from_micros(us));
            record(&mut total.late, Duration::from_micros(10));
        }
        total.errors.timeout = 20;
        total.errors.status = 4;
        total.statuses.insert(503, 4);
        total.cpu = Duration::from_micros(2048);
        Report::new(&plan(pace), total, Duration::from_secs(2))
    }

    #[test]
    fn a_sample_has_the_figures_of_the_run() {
        let sample = report(Pace::Constant { per_second: 512.0 }).sample("nop");
        assert_eq!((sample.n, sample.rps), (1000, Some(500.0)));
        let figures = [
            ("requests", 1024.0),
            ("errors", 24.0),
            ("errors_timeout", 20.0),
            ("errors_status", 4.0),
            ("status_503", 4.0),
            ("connections", 3.0),
            ("cpu_us_client", 2.0),
            ("rate", 512.0),
        ];
        for (name, value) in figures {
            assert_eq!(sample.extra.get(name), Some(&value), "{name}");
        }
        assert!((sample.extra["late_us_p99"] - 10.0).abs() < 0.1, "{:?}", sample.extra);
        assert!(!report(Pace::Closed).sample("nop").extra.contains_key("late_us_p99"));
    }

    #[test]
    fn a_table_shows_the_percentiles_and_the_errors_there_were() {
        let table = report(Pace::Closed).to_string();
        for line in [
            "p50                500.",
            "max               1000.",
            "  timeout             20",
            "    503                4",
        ] {
            assert!(table.contains(line), "{line:?} in\n{table}");
        }
        assert!(!table.contains("short"), "{table}");
    }

    #[test]
    fn a_run_without_a_single_answer_can_be_shown() {
        let report = Report::new(&plan(Pace::Closed), Tally::new(), Duration::ZERO);
        assert!(report.to_string().contains("0.0/s"));
        assert_eq!(report.sample("none").rps, Some(0.0));
    }

    #[test]
    fn an_hgrm_file_has_the_four_columns_and_the_summary() {
        let mut bytes = Vec::new();
        write_hgrm(&report(Pace::Closed).times, &mut bytes).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\n\n").unwrap();
        let columns: Vec<&str> = head.split_whitespace().collect();
        assert_eq!(columns, ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]);
        let (comments, rows): (Vec<&str>, Vec<&str>) =
            body.lines().partition(|line| line.starts_with('#'));
        assert_eq!(comments.len(), 3, "{text}");
        let rows: Vec<Vec<f64>> = rows
            .iter()
            .map(|row| row.split_whitespace().map(|field| field.parse().unwrap()).collect())
            .collect();
        assert!(rows.iter().all(|row| row.len() == 4), "{text}");
        assert!(rows.is_sorted_by(|a, b| a[0] <= b[0] && a[1] <= b[1] && a[2] <= b[2]), "{text}");
        let median = rows.iter().find(|row| row[1] >= 0.5).unwrap();
        assert!((median[0] - 500.0).abs() < 1.0 && (median[3] - 2.0).abs() < 1e-9, "{median:?}");
        let last = rows.last().unwrap();
        assert!((last[1], last[2]) == (1.0, 1000.0) && last[3].is_infinite(), "{last:?}");
    }
}
