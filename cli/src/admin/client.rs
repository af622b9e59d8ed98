//! Finds the engine that is meant and asks it.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{About, DIRECTORY_PREFIX, Failure, FailureKind, Request, Standing, socket_in};
use crate::config::{Config, ConfigError, Overrides};

/// Which engine to ask.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Place {
    /// Directory in which the engine made its own: as in its configuration, by default the system's
    /// temporary directory
    #[arg(long, value_name = "DIR")]
    pub runtime_dir: Option<PathBuf>,
    /// The engine's configuration file, to read `runtime_dir` from
    #[arg(short, long, value_name = "FILE", conflicts_with = "runtime_dir")]
    pub config: Option<PathBuf>,
    /// Process of the engine, where there are several
    #[arg(long, value_name = "PID")]
    pub pid: Option<u32>,
}

/// Why the engine did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// There is none.
    #[error("no engine of this user runs in {}", .0.display())]
    Absent(PathBuf),
    /// There is more than one, and it is not said which is meant.
    #[error("several engines run, choose one with --pid: {}", list(.0))]
    Several(Vec<About>),
    /// The file that says where it is cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// It refused.
    #[error("{}", .0.message)]
    Failed(Failure),
    /// It could not be asked, or its answer broke off.
    #[error("{}: {source}", path.display())]
    Socket {
        /// The socket, or the directory where it is looked for.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The answer could not be written to standard output.
    #[error("standard output: {0}")]
    Output(#[source] io::Error),
}

impl AdminError {
    /// Exit code of the command: 2 where the command line is to blame, 1 where the engine is.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            AdminError::Several(_) | AdminError::Config(_) => 2,
            AdminError::Failed(Failure { error: FailureKind::NotFound, .. }) => 2,
            AdminError::Absent(_)
            | AdminError::Failed(_)
            | AdminError::Socket { .. }
            | AdminError::Output(_) => 1,
        }
    }
}

fn list(engines: &[About]) -> String {
    let one = |about: &About| match about.address {
        Some(address) => format!("{} ({} at http://{address})", about.pid, about.role),
        None => format!("{} ({})", about.pid, about.role),
    };
    engines.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// A connection on which nothing was asked yet.
struct Connection {
    path: PathBuf,
    stream: UnixStream,
}

/// The lines of an answer, as they come.
#[derive(Debug)]
pub struct Answers {
    path: PathBuf,
    lines: BufReader<UnixStream>,
    /// How the sending of the request failed: the answer, if there is one, says why.
    unsent: Option<io::Error>,
}

/// A line of an answer to which any failure may come instead.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line<T> {
    Failure(Failure),
    Answer(T),
}

impl Place {
    /// Asks the one engine that is meant.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub fn ask(&self, request: &Request) -> Result<Answers, AdminError> {
        let parent = self.parent()?;
        let mut engines = match self.pid {
            Some(pid) => in_directory(&parent, pid)?.into_iter().collect::<Vec<_>>(),
            None => engines_in(&parent)?,
        };
        match (engines.pop(), engines.is_empty()) {
            (None, _) => Err(AdminError::Absent(parent)),
            (Some(engine), true) => Ok(engine.ask(request)),
            (Some(engine), false) => {
                engines.push(engine);
                let engine = choose(&parent, engines, |_| true)?;
                Ok(engine.ask(request))
            }
        }
    }

    /// Asks the one that is meant of those that `fit`, and leaves the connection to the caller.
    ///
    /// # Errors
    /// As [`Place::ask`].
    pub(crate) fn open(
        &self,
        request: &Request,
        fit: impl Fn(&About) -> bool,
    ) -> Result<UnixStream, AdminError> {
        let parent = self.parent()?;
        let engine = choose(&parent, engines_in(&parent)?, fit)?.ask(request);
        match engine.unsent {
            None => Ok(engine.lines.into_inner()),
            Some(source) => Err(AdminError::Socket { path: engine.path, source }),
        }
    }

    fn parent(&self) -> Result<PathBuf, AdminError> {
        let configured = match (&self.runtime_dir, &self.config) {
            (Some(directory), _) => Some(directory.clone()),
            (None, Some(file)) => Config::load(file, Overrides::default())?.engine.runtime_dir,
            (None, None) => None,
        };
        Ok(configured.unwrap_or_else(std::env::temp_dir))
    }
}

/// The one of several that is to be asked. While one takes over from another, there are two: the one
/// that drains is on its way out, and the one that starts may never serve.
fn choose(
    parent: &Path,
    engines: Vec<Connection>,
    fit: impl Fn(&About) -> bool,
) -> Result<Connection, AdminError> {
    // One that has gone meanwhile is none.
    let about = |engine: Connection| {
        let path = engine.path.clone();
        let about = engine.ask(&Request::About {}).read::<About>().ok()??;
        fit(&about).then_some((path, about))
    };
    let mut engines: Vec<_> = engines.into_iter().filter_map(about).collect();
    engines.sort_by_key(|(_, about)| about.pid);
    for passed_over in [Standing::Draining, Standing::Starting] {
        if engines.iter().any(|(_, about)| about.standing != passed_over) {
            engines.retain(|(_, about)| about.standing != passed_over);
        }
    }
    match engines.pop() {
        Some((path, _)) if engines.is_empty() => {
            connect(path)?.ok_or_else(|| AdminError::Absent(parent.to_owned()))
        }
        None => Err(AdminError::Absent(parent.to_owned())),
        Some(last) => {
            engines.push(last);
            Err(AdminError::Several(engines.into_iter().map(|(_, about)| about).collect()))
        }
    }
}

fn in_directory(parent: &Path, pid: u32) -> Result<Option<Connection>, AdminError> {
    connect(socket_in(&parent.join(format!("{DIRECTORY_PREFIX}{pid}"))))
}

/// The engines of this user that live.
fn engines_in(parent: &Path) -> Result<Vec<Connection>, AdminError> {
    let failed = |source| AdminError::Socket { path: parent.to_owned(), source };
    let mut engines = Vec::new();
    for entry in fs::read_dir(parent).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(DIRECTORY_PREFIX));
        if pid.is_none_or(|pid| pid.parse::<u32>().is_err()) {
            continue;
        }
        // What another user put there is not taken for an engine unless it is asked for by its pid.
        if !entry.metadata().is_ok_and(|data| data.is_dir() && data.uid() == geteuid().as_raw()) {
            continue;
        }
        engines.extend(connect(socket_in(&entry.path()))?);
    }
    Ok(engines)
}

/// Nothing where nobody listens: an engine that was killed leaves its socket behind.
fn connect(path: PathBuf) -> Result<Option<Connection>, AdminError> {
    match UnixStream::connect(&path) {
        Ok(stream) => Ok(Some(Connection { path, stream })),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            Ok(None)
        }
        Err(source) => Err(AdminError::Socket { path, source }),
    }
}

impl Connection {
    fn ask(mut self, request: &Request) -> Answers {
        let mut line = serde_json::to_vec(request).expect("a request has nothing but text in it");
        line.push(b'\n');
        let unsent = self.stream.write_all(&line).err();
        Answers { path: self.path, lines: BufReader::new(self.stream), unsent }
    }
}

impl Answers {
    /// The next line, or the end.
    ///
    /// # Errors
    /// The engine's refusal, or that it cannot be understood.
    pub fn read<T: DeserializeOwned>(&mut self) -> Result<Option<T>, AdminError> {
        let failed = |path: &Path, source| AdminError::Socket { path: path.to_owned(), source };
        let mut text = Vec::new();
        let read = self.lines.read_until(b'\n', &mut text);
        read.map_err(|source| failed(&self.path, source))?;
        if text.is_empty() {
            return match self.unsent.take() {
                Some(source) => Err(failed(&self.path, source)),
                None => Ok(None),
            };
        }
        self.unsent = None;
        let broken = |error: serde_json::Error| failed(&self.path, error.into());
        match serde_json::from_slice(&text).map_err(broken)? {
            Line::Answer(answer) => Ok(Some(answer)),
            Line::Failure(failure) => Err(AdminError::Failed(failure)),
        }
    }
}
