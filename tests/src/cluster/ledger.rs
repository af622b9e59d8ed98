//! What functions have run, by their own word.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The calls that were started, each with the engines on which it was.
#[derive(Debug)]
pub struct Ledger {
    runs: BTreeMap<String, Vec<String>>,
}

impl Ledger {
    /// Reads the file to which functions append.
    ///
    /// # Panics
    /// If it has a line that they have not written.
    #[must_use]
    pub fn read(file: &Path) -> Ledger {
        let text = fs::read_to_string(file).expect("functions have run");
        let mut runs = BTreeMap::<String, Vec<String>>::new();
        for line in text.lines() {
            let (host, id) = line.split_once(' ').expect("a host and an id");
            runs.entry(id.to_owned()).or_default().push(host.to_owned());
        }
        Ledger { runs }
    }

    /// Where a call was started, in that order.
    #[must_use]
    pub fn runs(&self, id: &str) -> &[String] {
        self.runs.get(id).map_or(&[], Vec::as_slice)
    }

    /// How many calls an engine has started.
    #[must_use]
    pub fn started_on(&self, host: &str) -> usize {
        self.runs.values().flatten().filter(|known| *known == host).count()
    }
}
