//! The admin socket of a running `nightcore up`, as its clients see it: what is asked and answered
//! there, and how it is found.
//!
//! `admin.sock` lies in the engine's private directory. A connection carries one request, a line of
//! JSON, and its answer: lines of JSON until the engine closes, or a single [`Failure`]. `up::admin`
//! is the other side.

mod client;
mod handover;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use self::client::{AdminError, Answers, Place};
pub(crate) use self::handover::{Acknowledged, Handed, Offer, Purpose, Socket, Word};
pub(crate) use crate::config::Role;

/// Longest request in bytes, its newline included.
pub(crate) const REQUEST_SIZE_MAX: usize = 1 << 20;
/// Name of an engine's directory, before its pid.
const DIRECTORY_PREFIX: &str = "nightcore-";

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Who is there: one [`About`].
    About {},
    /// The lines that functions printed: a [`LogLine`] each.
    Logs {
        /// Of this function; of all where none is named.
        function: Option<String>,
        /// The last ones, as many as this; all that are kept where nothing is said.
        lines: Option<usize>,
        /// And those to come, until one side closes.
        follow: bool,
    },
    /// Deploy functions, each as the next version of the one of its name if there is one: a
    /// [`Report`] of each.
    Deploy {
        /// Where the text stands, for messages and for relative paths of libraries.
        file: PathBuf,
        /// A configuration.
        text: String,
        /// Which of its functions; none: all.
        functions: Vec<String>,
    },
    /// Remove functions once their last calls have ended: a [`Report`] of each.
    Remove {
        /// Their names.
        functions: Vec<String>,
    },
    /// Read the configuration file again: a [`Report`] of each function that differs.
    Reload {},
    /// Lend the listening sockets of a gateway to its successor, which goes on asking: see `handover`.
    HandOver {},
}

/// What became of one function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// Its name, or the section of a configuration that cannot be changed.
    pub function: String,
    /// Whether it is as was asked.
    pub done: bool,
    /// What was done, or why not, in one line.
    pub message: String,
}

/// The engine that answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Its process.
    pub pid: u32,
    /// Of `nightcore`.
    pub version: String,
    /// Where it serves HTTP.
    pub address: Option<SocketAddr>,
    /// Which command it is.
    #[serde(default)]
    pub role: Role,
    /// Whether it is the one to ask.
    #[serde(default)]
    pub standing: Standing,
}

/// How far a process is between its start and its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It does not serve yet, and may never do so.
    Starting,
    /// As usual.
    #[default]
    Serving,
    /// It takes nothing new, and ends with the last of what it has.
    Draining,
}

/// A line that a function printed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When the engine read it: RFC 3339, in microseconds, UTC.
    pub time: String,
    /// The function.
    pub function: String,
    /// Which deployment of it, from 1.
    pub version: u32,
    /// Which of its containers, from 1.
    pub generation: u32,
    /// `stdout`, `stderr`, or `notice` for what the engine has to say of the lines.
    pub stream: String,
    /// The request that it belongs to, where the container said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// The text, in which bytes that are no UTF-8 stand as `\xff`.
    pub text: String,
    /// Bytes that were cut off its end.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cut: u64,
}

/// Why a request was not answered otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// For programs.
    pub error: FailureKind,
    /// For people: one line.
    pub message: String,
}

/// What kind of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The request is none, or too large.
    BadRequest,
    /// What it names is not there.
    NotFound,
    /// The peer is another user's process.
    Forbidden,
    /// The engine has all the connections it takes.
    Busy,
    /// The engine cannot do it now.
    Unavailable,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Failure {
    pub(crate) fn new(error: FailureKind, message: impl Into<String>) -> Failure {
        Failure { error, message: message.into() }
    }
}

/// Where an engine with its private directory there listens.
pub(crate) fn socket_in(directory: &Path) -> PathBuf {
    directory.join("admin.sock")
}
