//! What can be wrong with the files of keys, in one line each that repeats nothing secret.

use std::io;
use std::path::{Path, PathBuf};

/// Why files are no authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// It could not be read, or is larger than it may be.
    #[error("{}: cannot be read: {source}", file.display())]
    Unreadable {
        /// Which.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Its content means nothing.
    #[error("{}: {problem}", file.display())]
    Content {
        /// Which.
        file: PathBuf,
        /// What is wrong with it.
        problem: ContentError,
    },
}

/// What is wrong with a file of keys.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    /// No text of its language.
    #[error("line {line}: {message}")]
    Syntax {
        /// Counted from 1.
        line: usize,
        /// What the parser said, in one line.
        message: String,
    },
    /// One key cannot be used.
    #[error("key {index}: {message}")]
    Key {
        /// Counted from 1, in the order of the file.
        index: usize,
        /// Why not.
        message: String,
    },
    /// The whole cannot be used.
    #[error("{0}")]
    Whole(String),
}

impl AuthError {
    pub(super) fn content(file: &Path) -> impl FnOnce(ContentError) -> AuthError {
        let file = file.to_owned();
        move |problem| AuthError::Content { file, problem }
    }
}

/// The text in one line: parsers draw pictures.
pub(super) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
