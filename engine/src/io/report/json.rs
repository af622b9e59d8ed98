//! The JSON of `/v1/functions`. A field that is there stays, and keeps its meaning; new ones come behind.
//!
//! Counts are since the start, times in ns. `buckets` counts durations by the upper bounds of
//! `bounds_ns`, each bucket for itself, and has one more, for those above all bounds.

use std::fmt::Write;

use super::{Entry, Milli, outcomes};
use crate::container::{Cause, Record};
use crate::core::{BOUNDS_NS, Histogram};
use crate::quantile;

/// Appends the document.
pub(super) fn write(out: &mut String, entries: &[Entry<'_>]) {
    out.push_str("{\"functions\":[");
    separated(out, entries, write_entry);
    out.push_str("],\"bounds_ns\":[");
    separated(out, &BOUNDS_NS, write_number);
    out.push_str("]}\n");
}

// A String takes every write.

fn write_entry(out: &mut String, entry: &Entry<'_>) {
    let Entry { name, version, container, totals, .. } = entry;
    let state = container.state.as_str();
    let failed: u64 = totals.failed.iter().sum();
    let _ = write!(
        out,
        "{{\"name\":\"{name}\",\"state\":\"{state}\",\"workers\":{},\"idle\":{},\"running\":{},\
         \"waiting\":{},\"queued\":{},\"arrivals\":{},\"completed\":{},\"failed\":{failed},\
         \"abandoned\":{},\"starting\":{},\"ending\":{},\"limit\":{},\"hint\":{},\
         \"arrivals_per_second\":{},\"outcomes\":{{",
        totals.workers(),
        totals.idle,
        totals.running,
        totals.waiting,
        totals.queued,
        totals.arrivals,
        totals.completed,
        totals.abandoned,
        totals.starting,
        totals.ending,
        totals.limit,
        Milli(totals.hint_milli),
        Milli(totals.rate_milli),
    );
    let outcomes: Vec<_> = outcomes(totals).collect();
    separated(out, &outcomes, |out, (outcome, count)| {
        let _ = write!(out, "\"{outcome}\":{count}");
    });
    out.push_str("},\"queue_delay\":");
    write_histogram(out, &totals.queue_delay);
    let _ = write!(out, ",\"processing_estimate_ns\":{},\"processing\":", totals.processing_ns);
    write_histogram(out, &totals.processing);
    let _ = write!(out, ",\"version\":{version}");
    write_deaths(out, container);
    out.push('}');
}

fn write_deaths(out: &mut String, container: &Record) {
    let Record { starts, restarts, failed_starts, breaker, .. } = container;
    let _ = write!(
        out,
        ",\"starts\":{starts},\"restarts\":{restarts},\"failed_starts\":{failed_starts},\
         \"breaker\":\"{}\",\"deaths\":{{",
        breaker.as_str()
    );
    let deaths: Vec<_> = Cause::KINDS.into_iter().zip(container.deaths).collect();
    separated(out, &deaths, |out, (kind, count)| {
        let _ = write!(out, "\"{kind}\":{count}");
    });
    out.push_str("},\"last_death\":");
    match &container.last_death {
        None => out.push_str("null"),
        Some(cause) => {
            let _ = write!(out, "{{\"cause\":\"{}\",\"message\":", cause.kind());
            write_text(out, &cause.to_string());
            out.push('}');
        }
    }
}

/// A container may have had its say in it.
fn write_text(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            character if character.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(character));
            }
            character => out.push(character),
        }
    }
    out.push('"');
}

fn write_histogram(out: &mut String, histogram: &Histogram) {
    let count: u64 = histogram.counts.iter().sum();
    let _ = write!(out, "{{\"count\":{count},\"sum_ns\":{}", histogram.sum_ns);
    for (key, part) in [("p50_ns", 0.5), ("p99_ns", 0.99)] {
        let _ = match quantile::estimate_ns(&histogram.counts, &BOUNDS_NS, part) {
            Some(ns) => write!(out, ",\"{key}\":{ns}"),
            None => write!(out, ",\"{key}\":null"),
        };
    }
    out.push_str(",\"buckets\":[");
    separated(out, &histogram.counts, write_number);
    out.push_str("]}");
}

fn write_number(out: &mut String, number: &u64) {
    let _ = write!(out, "{number}");
}

fn separated<T>(out: &mut String, items: &[T], write_one: impl Fn(&mut String, &T)) {
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write_one(out, item);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::entry;
    use super::*;

    #[test]
    fn the_document_is_what_it_was_with_new_fields_behind() {
        let mut out = String::new();
        let idle = Entry { totals: Default::default(), ..entry("idle") };
        write(&mut out, &[entry("nop"), idle]);
        let expected = [
            r#"{"functions":[{"name":"nop","state":"up","workers":19,"idle":5,"running":3,"#,
            r#""waiting":4,"queued":2,"arrivals":7,"completed":3,"failed":1,"abandoned":1,"#,
            r#""starting":6,"ending":7,"limit":9,"hint":1.250,"arrivals_per_second":62.500,"#,
            r#""outcomes":{"ok":3,"abandoned":1,"function_error":1,"function_panic":0,"#,
        ];
        assert!(out.starts_with(&expected.concat()), "{out}");
        let expected = [
            r#""queue_delay":{"count":4,"sum_ns":4000,"p50_ns":5000,"p99_ns":9900,"#,
            r#""buckets":[4,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]},"#,
            r#""processing_estimate_ns":20000,"#,
            r#""processing":{"count":4,"sum_ns":20000060000,"p50_ns":20000,"p99_ns":10000000000,"#,
            r#""buckets":[0,3,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,1]},"version":2,"#,
            r#""starts":3,"restarts":2,"failed_starts":1,"breaker":"half_open","#,
            r#""deaths":{"exit":0,"signal":1,"out_of_memory":0,"failed_start":1,"protocol":0,"#,
            r#""hung_up":0,"stuck":0},"last_death":{"cause":"failed_start","#,
            r#""message":"could not be started: a \"b\"\u000a"}},{"name":"idle","#,
        ];
        assert!(out.contains(&expected.concat()), "{out}");
        let nothing = r#"{"count":0,"sum_ns":0,"p50_ns":null,"p99_ns":null,"buckets":[0,"#;
        assert_eq!(out.matches(nothing).count(), 2, "{out}");
        assert!(out.ends_with("5000000000,10000000000]}\n"), "{out}");
    }
}
