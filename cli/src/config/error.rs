//! What can be wrong with a configuration, told in one line each.

use std::fmt::{self, Write};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::credentials::CredentialError;

/// Why a file is no configuration. Its `Display` is one line and names the place.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read at all.
    #[error("{}: cannot be read: {source}", OneLine(file))]
    Unreadable {
        /// Path as given.
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// The file is no TOML.
    #[error("{}:{line}: not valid TOML: {}", OneLine(file), OneLine(message))]
    Syntax {
        /// Path as given.
        file: String,
        /// Counted from 1.
        line: usize,
        /// What the parser said.
        message: String,
    },
    /// A key or its value cannot be used.
    #[error("{}: {}", OneLine(place), OneLine(problem))]
    Refused {
        /// Where it stands.
        place: Place,
        /// What is wrong with it.
        problem: Problem,
    },
}

/// Where a value was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the file.
    Line {
        /// Path as given.
        file: String,
        /// Counted from 1.
        line: usize,
        /// Dotted, as in `function.timeout`.
        key: String,
    },
    /// On the command line.
    Option(&'static str),
}

/// What is wrong with a value.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// Wrong type, form or range.
    #[error("expected {expected}, got {got}")]
    Unexpected {
        /// What would have been right.
        expected: String,
        /// The value, quoted if it was a string.
        got: String,
    },
    /// A key that must be there is not.
    #[error("expected {expected}, but the key is missing")]
    Missing {
        /// What would have been right.
        expected: &'static str,
    },
    /// No such key.
    #[error("unknown key, expected one of {}", known.join(", "))]
    UnknownKey {
        /// The keys of this table.
        known: &'static [&'static str],
    },
    /// Two functions of one name.
    #[error("expected a name of its own, but the function on line {first_line} is {name:?} too")]
    Duplicate {
        /// The name of both.
        name: String,
        /// Line of the other.
        first_line: usize,
    },
    /// Fewer workers allowed than required.
    #[error("expected at most max_workers, which is {workers_max}, got {min}")]
    AboveMax {
        /// `min_workers`.
        min: u16,
        /// `max_workers`, given or default.
        workers_max: u16,
    },
    /// No such library.
    #[error("expected a library file, found none at {}", Listed(looked))]
    NoLibrary {
        /// Where it was looked for, in this order.
        looked: Vec<PathBuf>,
    },
    /// A variable that cannot be set or is the engine's own.
    #[error("expected a variable name that is not empty, has no \"=\" and no prefix NIGHTCORE_")]
    EnvName,
    /// A function of a process that runs none.
    #[error("a gateway runs no functions; they belong into the file of an engine")]
    NoFunctionsHere,
    /// Two ways to verify a token.
    #[error("expected either secret_file or jwks_file, not both")]
    TwoSigners,
    /// Everyone could run everything.
    #[error(
        "expected a loopback address, because calls are not authenticated, got \"{0}\" \
         (keys in [auth], or insecure = true in [gateway], permit it)"
    )]
    Exposed(SocketAddr),
    /// Everyone could see what runs here.
    #[error(
        "expected a loopback address, because whoever reaches it sees the state of the host, \
         got \"{address}\" (insecure = true in {section} permits it)"
    )]
    StateExposed {
        /// The address.
        address: SocketAddr,
        /// The section that says so.
        section: &'static str,
    },
    /// A file of certificates or a key.
    #[error("{0}")]
    Credentials(CredentialError),
    /// More than one way to prove oneself, of which one would be ignored.
    #[error("expected only one of {expected}")]
    TwoProofs {
        /// The ways.
        expected: &'static str,
    },
    /// Every stranger could join.
    #[error(
        "expected a loopback address, because insecure = true lets everyone join, got \"{0}\" \
         (key_file, or certificate, key and authorities permit it)"
    )]
    InsecureLink(SocketAddr),
    /// A gateway elsewhere that nobody could tell from a stranger.
    #[error(
        "expected gateways of this host, because insecure = true proves nothing, got \"{0}\" \
         (key_file, or certificate, key and authorities in [engine.link] permit others)"
    )]
    InsecureDial(String),
    /// A name for certificates that there are none of.
    #[error("a name in certificates, but there are none: key_file or insecure stands beside it")]
    NoCertificates,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Line { file, line, key } => write!(f, "{file}:{line}: {key}"),
            Place::Option(option) => f.write_str(option),
        }
    }
}

/// Control characters escaped: keys and paths may hold line ends, and what a terminal obeys.
struct OneLine<T>(T);

impl<T: fmt::Display> fmt::Display for OneLine<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaped(f), "{}", self.0)
    }
}

struct Escaped<'a, 'f>(&'a mut fmt::Formatter<'f>);

impl fmt::Write for Escaped<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|character| match character.is_control() {
            true => write!(self.0, "{}", character.escape_default()),
            false => self.0.write_char(character),
        })
    }
}

/// Paths with " or " between them.
struct Listed<'a>(&'a [PathBuf]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, path) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { " or " };
            write!(f, "{separator}{}", path.display())?;
        }
        Ok(())
    }
}
