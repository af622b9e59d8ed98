//! What is kept of a run: one JSON object a line, written as soon as it is measured.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::figures::Figures;
use super::pool::Pool;
use super::step::Recovery;

/// In the directory of the results.
const FILE: &str = "runs.jsonl";

/// One measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// As fast as answers come, or at a constant rate.
    Load {
        /// From 1.
        round: u32,
        /// A workload's name.
        workload: String,
        /// Who decided.
        pool: Pool,
        /// Percent of the capacity that were due; none in a closed loop.
        percent: Option<u32>,
        /// What came of it.
        figures: Figures,
    },
    /// A load that rose at once.
    Step {
        /// From 1.
        round: u32,
        /// A workload's name.
        workload: String,
        /// Who decided.
        pool: Pool,
        /// Requests a second before and after.
        per_second: (f64, f64),
        /// What came of it.
        recovery: Recovery,
    },
    /// Calls that come back to a pool which they fill.
    Recursion {
        /// Which calls.
        calls: String,
        /// Who decided.
        pool: Pool,
        /// How it went.
        runs: Ended,
    },
}

/// How recursive calls ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Given with every call.
    pub deadline_ms: u64,
    /// How often all calls were made.
    pub runs: u32,
    /// Runs in which every call was answered 200, 503 or 508 within its deadline.
    pub well: u32,
    /// Calls by status; 0 stands for no answer.
    pub statuses: BTreeMap<u16, u64>,
    /// Calls answered past their deadline.
    pub late: u64,
    /// The slowest answer.
    pub slowest_ms: u64,
}

/// Why there are no records.
#[derive(Debug, Error)]
pub enum Error {
    /// The file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line that is no record.
    #[error("{path}:{line}: no record: {source}")]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// Takes records down.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
}

impl Journal {
    /// A new one in `directory`.
    pub fn create(directory: &Path) -> Result<Journal, Error> {
        let path = directory.join(FILE);
        let created = std::fs::create_dir_all(directory).and_then(|()| File::create(&path));
        let file = created.map_err(|source| Error::File { path: path.clone(), source })?;
        Ok(Journal { file, path })
    }

    /// Adds a line.
    pub fn write(&mut self, record: &Record) -> Result<(), Error> {
        let line = serde_json::to_string(record).map_err(std::io::Error::from);
        let written = line.and_then(|line| self.file.write_all((line + "\n").as_bytes()));
        written.map_err(|source| Error::File { path: self.path.clone(), source })
    }
}

/// All records of a run, in the order of their measuring.
pub fn read(directory: &Path) -> Result<Vec<Record>, Error> {
    let path = directory.join(FILE);
    let text = std::fs::read_to_string(&path)
        .map_err(|source| Error::File { path: path.clone(), source })?;
    let record = |(index, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|source| Error::Line {
            path: path.clone(),
            line: index + 1,
            source,
        })
    };
    text.lines().enumerate().map(record).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::concurrency::tests::figures;

    #[test]
    fn what_is_written_can_be_read() {
        let directory = tempfile::tempdir().unwrap();
        let load = Record::Load {
            round: 1,
            workload: "spin 1 ms".to_owned(),
            pool: Pool::Fixed(4),
            percent: Some(80),
            figures: figures(),
        };
        let ended = Ended { statuses: [(200, 3), (0, 1)].into(), ..Ended::default() };
        let recursion =
            Record::Recursion { calls: "A, A".to_owned(), pool: Pool::Managed, runs: ended };
        let mut journal = Journal::create(directory.path()).unwrap();
        journal.write(&load).unwrap();
        journal.write(&recursion).unwrap();
        assert_eq!(read(directory.path()).unwrap(), [load, recursion]);
    }

    #[test]
    fn a_line_that_is_no_record_is_named() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(FILE), "{}\n").unwrap();
        let error = read(directory.path()).unwrap_err().to_string();
        assert!(error.contains("runs.jsonl:1"), "{error}");
    }
}
