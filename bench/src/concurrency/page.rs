//! The table, the bars and the plots of a run, from its records.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::bars::{self, Value, Verdict, loads, median_of, pools, workloads};
use super::figures::Figures;
use super::record::{self, Record};
use super::step::median;
use super::workload::DEADLINE;
use crate::report;
use crate::report::bars::Bar;
use crate::report::plot::{Axis, Line, Scale, draw};
use crate::report::table::Align::{Left, Right};
use crate::report::table::{figure, table};

const LOAD: Axis = Axis { label: "load, % of the capacity", scale: Scale::Linear };
const GOODPUT: Axis = Axis { label: "answers in time a second", scale: Scale::Linear };
const P99: Axis = Axis { label: "p99 of what was served, ms", scale: Scale::Logarithmic };

/// Why there is no page.
#[derive(Debug, Error)]
pub enum Error {
    /// The records cannot be read.
    #[error(transparent)]
    Record(#[from] record::Error),
    /// A plot cannot be drawn.
    #[error(transparent)]
    Plot(#[from] report::Error),
    /// A file cannot be written.
    #[error("{path}: {source}")]
    Write {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Writes `summary.md` and the plots beside the records in `directory`; gives what a terminal gets.
pub fn write(directory: &Path) -> Result<String, Error> {
    let records = record::read(directory)?;
    let plots = plots(&records)?;
    let text = text(&records);
    let mut page = format!(
        "# Managed concurrency\n\n[How this is measured and read]\
         (../../../../docs/benchmarking.md#managed-concurrency).\n\n{text}"
    );
    if !plots.is_empty() {
        page.push_str("\n## Plots\n");
    }
    for (file, svg) in &plots {
        let name = file.trim_end_matches(".svg").replace('_', " ");
        let _ = write!(page, "\n![{name}]({file})\n");
        write_file(directory, file, svg)?;
    }
    write_file(directory, "summary.md", &page)?;
    Ok(text)
}

fn write_file(directory: &Path, file: &str, text: &str) -> Result<(), Error> {
    let path = directory.join(file);
    std::fs::write(&path, text).map_err(|source| Error::Write { path, source })
}

fn text(records: &[Record]) -> String {
    format!(
        "## Loads\n\nMedians over the rounds. Per second: answers of status 200, and those within \
         {} ms. Times in ms, of answers of status 200. Refused: 429, 503, 504 or never sent, of all \
         that were due. The generator sent {} ms late at most (p99 of its worst load).\n\n\
         {}\n## Steps and recursion\n\n{}\n{}\n## Bars\n\n{}",
        DEADLINE.as_millis(),
        figure(late_ms(records)),
        loads_table(records),
        steps_table(records),
        recursion_table(records),
        bars_table(&bars::verdicts(records)),
    )
}

/// The generator's own error in its worst load.
fn late_ms(records: &[Record]) -> f64 {
    let late = records.iter().map(|record| match record {
        Record::Load { figures, .. } => figures.late_us_p99 / 1e3,
        _ => 0.0,
    });
    late.fold(0.0, f64::max)
}

fn loads_table(records: &[Record]) -> String {
    let header =
        ["workload", "load", "pool", "due/s", "served/s", "in time/s", "p50", "p99", "refused"];
    let mut rows = Vec::new();
    for workload in workloads(records) {
        for percent in percents(records, workload) {
            for pool in pools(records, workload) {
                let loads = loads(records, workload, pool, percent);
                if loads.is_empty() {
                    continue;
                }
                let value = |of: fn(&Figures) -> Option<f64>| median_of(&loads, of);
                let ms = |us: Option<f64>| us.map_or("-".to_owned(), |us| figure(us / 1e3));
                let whole =
                    |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.0}"));
                rows.push(vec![
                    workload.to_owned(),
                    percent.map_or("closed loop".to_owned(), |percent| format!("{percent}%")),
                    pool.to_string(),
                    whole(value(|figures| figures.offered_per_second)),
                    whole(value(|figures| Some(figures.throughput))),
                    whole(value(|figures| Some(figures.goodput))),
                    ms(value(|figures| figures.p50_us)),
                    ms(value(|figures| figures.p99_us)),
                    value(|figures| Some(figures.refused_percent()))
                        .map_or(String::new(), |percent| format!("{percent:.1}%")),
                ]);
            }
        }
    }
    let align = [Left, Left, Left, Right, Right, Right, Right, Right, Right];
    table(&header, &align, rows)
}

/// The loads of a workload: the closed loop first.
fn percents(records: &[Record], of: &str) -> BTreeSet<Option<u32>> {
    let percents = records.iter().filter_map(|record| match record {
        Record::Load { workload, percent, .. } if workload == of => Some(*percent),
        _ => None,
    });
    percents.collect()
}

fn steps_table(records: &[Record]) -> String {
    let header = ["step", "pool", "from/s", "to/s", "p99 at rest, ms", "at rest after, ms"];
    let mut keys = Vec::new();
    for record in records {
        if let Record::Step { workload, pool, per_second, .. } = record
            && !keys.iter().any(|&(name, by, _)| (name, by) == (workload, *pool))
        {
            keys.push((workload, *pool, *per_second));
        }
    }
    let rows = keys.into_iter().map(|(of, by, (before, after))| {
        let recoveries = records.iter().filter_map(|record| match record {
            Record::Step { workload, pool, recovery, .. } if workload == of && *pool == by => {
                Some((recovery.rest_us.map(|us| us / 1e3), recovery.back_ms))
            }
            _ => None,
        });
        let (rest, back): (Vec<_>, Vec<_>) = recoveries.unzip();
        let shown = |values: &[Option<f64>]| median(values).map_or("never".to_owned(), figure);
        vec![
            of.clone(),
            by.to_string(),
            format!("{before:.0}"),
            format!("{after:.0}"),
            shown(&rest),
            shown(&back),
        ]
    });
    table(&header, &[Left, Left, Right, Right, Right, Right], rows.collect())
}

fn recursion_table(records: &[Record]) -> String {
    let header = ["calls", "pool", "runs", "ended well", "calls by status", "late", "slowest, ms"];
    let rows = records.iter().filter_map(|record| {
        let Record::Recursion { calls, pool, runs } = record else { return None };
        let statuses: Vec<String> =
            runs.statuses.iter().map(|(status, count)| format!("{status}: {count}")).collect();
        Some(vec![
            calls.clone(),
            pool.to_string(),
            runs.runs.to_string(),
            runs.well.to_string(),
            statuses.join(", "),
            runs.late.to_string(),
            runs.slowest_ms.to_string(),
        ])
    });
    table(&header, &[Left, Left, Right, Right, Left, Right, Right], rows.collect())
}

fn bars_table(verdicts: &[Verdict]) -> String {
    let rows = verdicts.iter().map(|verdict| {
        let bar = match verdict.bar {
            Bar::AtMost(limit) => format!("<= {}", figure(limit)),
            Bar::AtLeast(limit) => format!(">= {}", figure(limit)),
        };
        let (value, judged) = match verdict.value {
            Value::Finite(value) if verdict.is_met() => (figure(value), "ok"),
            Value::Finite(value) => (figure(value), "missed"),
            Value::Endless => ("endless".to_owned(), "missed"),
            Value::NotMeasured => (String::new(), "not measured"),
        };
        vec![verdict.of.clone(), verdict.what.clone(), value, bar, judged.to_owned()]
    });
    let header = ["of", "managed pool", "median", "bar", ""];
    table(&header, &[Left, Left, Right, Left, Left], rows.collect())
}

/// Two plots a workload: load against goodput and against p99.
fn plots(records: &[Record]) -> Result<Vec<(String, String)>, Error> {
    let mut plots = Vec::new();
    for workload in workloads(records) {
        let file = workload.replace(' ', "_");
        let goodput = lines(records, workload, |figures| Some(figures.goodput));
        let p99 = lines(records, workload, |figures| figures.p99_us.map(|us| us / 1e3));
        for (name, axis, lines) in [("goodput", GOODPUT, goodput), ("p99", P99, p99)] {
            if !lines.is_empty() {
                let file = format!("{name}_{file}.svg");
                let svg = draw(&file, &format!("{workload}: {name}"), LOAD, axis, &lines)?;
                plots.push((file, svg));
            }
        }
    }
    Ok(plots)
}

/// A line for each pool that has a point, the managed one first.
fn lines(records: &[Record], workload: &str, of: fn(&Figures) -> Option<f64>) -> Vec<Line> {
    let percents = percents(records, workload);
    let line = |pool| {
        let point = |percent: u32| {
            let loads = loads(records, workload, pool, Some(percent));
            Some((f64::from(percent), median_of(&loads, of)?))
        };
        let points = percents.iter().copied().flatten().filter_map(point).collect();
        Line { label: pool.to_string(), points }
    };
    let lines = pools(records, workload).into_iter().rev().map(line);
    lines.filter(|line: &Line| !line.points.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::concurrency::pool::Pool;
    use crate::concurrency::record::{Ended, Journal};
    use crate::concurrency::recursion::CALLS;
    use crate::concurrency::step::Recovery;
    use crate::concurrency::tests::figures;

    fn records() -> Vec<Record> {
        let load = |pool, percent| Record::Load {
            round: 1,
            workload: "spin 1 ms".to_owned(),
            pool,
            percent,
            figures: figures(),
        };
        vec![
            load(Pool::Fixed(4), None),
            load(Pool::Managed, None),
            load(Pool::Managed, Some(80)),
            Record::Step {
                round: 1,
                workload: "spin 1 ms".to_owned(),
                pool: Pool::Managed,
                per_second: (100.0, 900.0),
                recovery: Recovery { windows_us: vec![None], rest_us: None, back_ms: None },
            },
            Record::Recursion {
                calls: CALLS[0].name.to_owned(),
                pool: Pool::ManagedUpTo(4),
                runs: Ended { runs: 3, well: 3, statuses: [(508, 3)].into(), ..Ended::default() },
            },
        ]
    }

    #[test]
    fn a_page_has_every_load_step_recursion_and_bar() {
        let text = text(&records());
        let row =
            |words: &[&str]| text.lines().any(|line| words.iter().all(|word| line.contains(word)));
        assert!(row(&["spin 1 ms", "closed loop", "fixed 4"]), "{text}");
        assert!(row(&["spin 1 ms", "80%", "managed"]), "{text}");
        assert!(row(&["spin 1 ms", "managed", "900", "never"]), "{text}");
        let calls = CALLS[0].name;
        assert!(row(&[calls, "508: 3"]) && row(&[calls, "ended well", "ok"]), "{text}");
        assert!(row(&[CALLS[1].name, "ended well", "not measured"]), "{text}");
        assert!(
            row(&["spin 1 ms", "closed loop: throughput over that of fixed 4", "ok"]),
            "{text}"
        );
        assert!(row(&["spin 1 ms", "step", "endless", "missed"]), "{text}");
    }

    #[test]
    fn a_directory_gets_page_and_plots() {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = Journal::create(directory.path()).unwrap();
        records().iter().for_each(|record| journal.write(record).unwrap());
        write(directory.path()).unwrap();
        let page = std::fs::read_to_string(directory.path().join("summary.md")).unwrap();
        for file in ["goodput_spin_1_ms.svg", "p99_spin_1_ms.svg"] {
            assert!(page.contains(file), "{page}");
            let svg = std::fs::read_to_string(directory.path().join(file)).unwrap();
            roxmltree::Document::parse(&svg).unwrap();
        }
    }
}
