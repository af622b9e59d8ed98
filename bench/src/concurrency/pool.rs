//! Who decides how many calls run at once, as it is written in `nightcore.toml`.

use std::fmt::{self, Display, Write};

use serde::{Deserialize, Serialize};

/// Workers of the pools that nobody told a size.
const WORKERS_MAX: u16 = 256;

/// A policy with its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pool {
    /// So many workers, from the start.
    Fixed(u16),
    /// As many as calls wait.
    Unlimited,
    /// As many as the load needs.
    Managed,
    /// The same with so many workers at most.
    ManagedUpTo(u16),
}

/// As it is called in records and tables.
impl Display for Pool {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pool::Fixed(workers) => write!(out, "fixed {workers}"),
            Pool::Unlimited => write!(out, "unlimited"),
            Pool::Managed => write!(out, "managed"),
            Pool::ManagedUpTo(workers) => write!(out, "managed, at most {workers}"),
        }
    }
}

impl Pool {
    /// A configuration with these functions (name and library), each with a pool of its own, on one
    /// shard.
    #[must_use]
    pub fn configuration(self, functions: &[(&str, &str)]) -> String {
        let (policy, min, max) = match self {
            Pool::Fixed(workers) => ("fixed", workers, workers),
            Pool::Unlimited => ("unlimited", 1, WORKERS_MAX),
            Pool::Managed => ("managed", 1, WORKERS_MAX),
            Pool::ManagedUpTo(workers) => ("managed", 1, workers),
        };
        let mut text = "[engine]\nshards = 1\n".to_owned();
        for (name, library) in functions {
            write!(
                text,
                "\n[[function]]\nname = \"{name}\"\nlibrary = \"{library}\"\n\
                 concurrency = \"{policy}\"\nmin_workers = {min}\nmax_workers = {max}\n"
            )
            .expect("a string takes all");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_gets_the_pool() {
        let functions = [("spin", "libspin.so"), ("sleep", "libsleep.so")];
        let fixed = Pool::Fixed(8).configuration(&functions);
        let pool = "concurrency = \"fixed\"\nmin_workers = 8\nmax_workers = 8\n";
        assert_eq!(fixed.matches(pool).count(), 2, "{fixed}");
        assert!(fixed.contains("name = \"sleep\"\nlibrary = \"libsleep.so\""), "{fixed}");
        let managed = Pool::Managed.configuration(&functions);
        let pool = "concurrency = \"managed\"\nmin_workers = 1\nmax_workers = 256\n";
        assert_eq!(managed.matches(pool).count(), 2, "{managed}");
    }
}
