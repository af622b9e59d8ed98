//! Sums a run up: reads its raw samples, writes summary, table and plots beside them.
//!
//! A directory of results holds `raw/*.jsonl` (one [`Record`](runs::Record) a line: a sample and
//! its round) and `environment.json`; everything else in it is made here and can be made again.
//!
//! - [`runs`]: the raw samples, by case and round.
//! - [`bars`]: which figures are compared, and what is asked of them.
//! - [`summary`]: `summary.json`, whose schema is stable.
//! - [`table`]: the page `summary.md`.
//! - [`charts`]: which plots there are; [`plot`]: how they are drawn.

pub mod bars;
pub mod charts;
pub mod plot;
pub mod runs;
pub mod summary;
pub mod table;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use runs::Runs;
use summary::Summary;

/// Why there is no report.
#[derive(Debug, Error)]
pub enum Error {
    /// A file of the results cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line that is no sample.
    #[error("{path}:{line}: no sample: {source}")]
    Sample {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The environment is not JSON.
    #[error("{path}: no environment: {source}")]
    Environment {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// Nothing was measured.
    #[error("{0}: no samples")]
    Empty(PathBuf),
    /// A result cannot be written.
    #[error("{path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A plot cannot be drawn.
    #[error("{file}: {reason}")]
    Plot {
        /// Its name.
        file: String,
        /// What the library said.
        reason: String,
    },
}

/// Writes `summary.json`, `summary.md` and the plots into `directory`, and gives the table to
/// print.
pub fn run(directory: &Path) -> Result<String, Error> {
    let runs = Runs::read(&directory.join("raw"))?;
    let path = directory.join("environment.json");
    let environment = serde_json::from_str(&read(&path)?)
        .map_err(|source| Error::Environment { path, source })?;
    let summary = Summary::new(environment, &runs, bars::RATIOS);
    write(&directory.join("summary.json"), &summary.to_json())?;
    let plots = charts::draw_all(&runs)?;
    for (file, svg) in &plots {
        write(&directory.join(file), svg)?;
    }
    let files: Vec<&str> = plots.iter().map(|(file, _)| file.as_str()).collect();
    write(&directory.join("summary.md"), &table::page(&summary, &runs, &files))?;
    Ok(table::printed(&summary, &runs))
}

fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(|source| Error::Write { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
