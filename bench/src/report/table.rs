//! `summary.md`: the ratios with their bars, the cases, what was left out, the machine.

use std::fmt::Write;

use serde_json::Value as Json;

use super::bars::{Bar, RATIOS, Ratio};
use super::runs::Runs;
use super::summary::{Case, Summary};

/// Tells how a column's cells are set.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// What a terminal gets: both tables and what was left out.
#[must_use]
pub fn printed(summary: &Summary, runs: &Runs) -> String {
    let skipped = skipped(&summary.env);
    format!("{}\n{}{skipped}", ratios(summary), cases(summary, runs))
}

/// The page kept with the results.
#[must_use]
pub fn page(summary: &Summary, runs: &Runs, plots: &[&str]) -> String {
    let mut page = format!(
        "# {}\n\n## Ratios\n\nTaken within each round, then summed up. \
         [How this is measured and read](../../../docs/benchmarking.md).\n\n{}\n\
         ## Cases\n\nMedians over the rounds; times in microseconds.\n\n{}{}",
        summary.env["command"].as_str().unwrap_or("Benchmark"),
        ratios(summary),
        cases(summary, runs),
        skipped(&summary.env),
    );
    if !plots.is_empty() {
        page.push_str("\n## Plots\n");
    }
    for file in plots {
        let _ = write!(page, "\n![{}]({file})\n", file.trim_end_matches(".svg").replace('_', " "));
    }
    page.push_str("\n## Machine\n\n");
    for (key, value) in summary.env.as_object().into_iter().flatten() {
        match value {
            Json::Object(_) => {}
            Json::String(text) => drop(writeln!(page, "- {key}: {text}")),
            other => drop(writeln!(page, "- {key}: {other}")),
        }
    }
    page
}

fn ratios(summary: &Summary) -> String {
    let header = ["ratio", "what", "median", "min", "max", "runs", "bar", "", "moonshot"];
    let rows = RATIOS.iter().map(|ratio| {
        let mut row = vec![ratio.name.to_owned(), ratio.what.to_owned()];
        match summary.ratios.get(ratio.name) {
            Some(value) => row.extend([
                figure(value.median),
                figure(value.min),
                figure(value.max),
                value.runs.to_string(),
            ]),
            None => row.extend(["", "", "", "0"].map(str::to_owned)),
        }
        let verdict = match (ratio.bar, summary.ratios.get(ratio.name)) {
            (Some(_), None) => "not measured",
            (Some(bar), Some(value)) if bar.is_met(value.median) => "met",
            (Some(_), Some(_)) => "missed",
            (None, _) => "",
        };
        row.extend([bar(ratio), verdict.to_owned(), moonshot(ratio)]);
        row
    });
    use Align::{Left, Right};
    table(&header, &[Left, Left, Right, Right, Right, Right, Left, Left, Left], rows.collect())
}

fn bar(ratio: &Ratio) -> String {
    match ratio.bar {
        Some(Bar::AtMost(limit)) => format!("<= {}", figure(limit)),
        Some(Bar::AtLeast(limit)) => format!(">= {}", figure(limit)),
        None => String::new(),
    }
}

fn moonshot(ratio: &Ratio) -> String {
    ratio.moonshot.map_or_else(String::new, figure)
}

fn cases(summary: &Summary, runs: &Runs) -> String {
    let header = ["case", "p50", "p99", "p99.9", "per second", "n", "runs", "also"];
    let rows = runs.cases().filter_map(|name| Some(case_row(name, summary.cases.get(name)?)));
    use Align::{Left, Right};
    table(&header, &[Left, Right, Right, Right, Right, Right, Right, Left], rows.collect())
}

fn case_row(name: &str, case: &Case) -> Vec<String> {
    let optional = |value: Option<f64>| value.map_or_else(String::new, figure);
    let extra = case.extra.iter().map(|(name, value)| format!("{name} {}", figure(*value)));
    vec![
        name.to_owned(),
        optional(case.p50_us),
        optional(case.p99_us),
        optional(case.p999_us),
        optional(case.rps),
        case.n.to_string(),
        case.runs.to_string(),
        extra.collect::<Vec<_>>().join(", "),
    ]
}

/// Cases that were not measured, with the reason, as the suite noted them in the environment.
fn skipped(env: &Json) -> String {
    let mut text = String::new();
    for (case, reason) in env["skipped"].as_object().into_iter().flatten() {
        let _ = writeln!(text, "- {case}: {}", reason.as_str().unwrap_or_default());
    }
    if text.is_empty() { text } else { format!("\nSkipped:\n\n{text}") }
}

/// As many decimals as a figure of this size deserves.
pub(crate) fn figure(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 1000.0 || size == 0.0 => 0,
        size if size >= 100.0 => 1,
        _ => 2,
    };
    format!("{value:.decimals$}")
}

/// A Markdown table whose columns line up.
pub(crate) fn table(header: &[&str], align: &[Align], rows: Vec<Vec<String>>) -> String {
    let header: Vec<String> = header.iter().map(|&cell| cell.to_owned()).collect();
    let width = |column: usize| {
        let cells = rows.iter().chain([&header]).map(|row| row[column].chars().count());
        cells.max().unwrap_or(0).max(2)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |row: &[String]| {
        let cells = row.iter().zip(&widths).zip(align).map(|((cell, &width), align)| match align {
            Align::Left => format!(" {cell:<width$} "),
            Align::Right => format!(" {cell:>width$} "),
        });
        format!("|{}|\n", cells.collect::<Vec<_>>().join("|"))
    };
    let rule = widths.iter().zip(align).map(|(&width, align)| match align {
        Align::Left => "-".repeat(width + 2),
        Align::Right => format!("{}:", "-".repeat(width + 1)),
    });
    let rule = format!("|{}|\n", rule.collect::<Vec<_>>().join("|"));
    let body: String = rows.iter().map(|row| line(row)).collect();
    line(&header) + &rule + &body
}
