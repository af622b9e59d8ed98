//! What becomes of each request.

use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use engine::logs::Logs;

use super::connection::write_line;
use super::logs::{self, Query};
use crate::admin::{About, Failure, FailureKind, Report, Request};
use crate::config::{Config, Function, Overrides, Role};
use crate::up::deploy::Deployer;
use crate::up::handover::HandOver;

/// What the requests are about.
#[derive(Debug)]
pub(in crate::up) struct Engine {
    /// Where it serves HTTP.
    pub(in crate::up) address: Option<SocketAddr>,
    /// Which command it is.
    pub(in crate::up) role: Role,
    /// What its functions print.
    pub(in crate::up) logs: Logs,
    /// Changes what it serves.
    pub(in crate::up) deployer: Arc<Deployer>,
    /// Lets a successor have its sockets.
    pub(in crate::up) handover: HandOver,
}

impl Engine {
    /// Does what is asked and writes the answer's lines.
    ///
    /// # Errors
    /// What is to be answered instead, before any line was written.
    pub(super) fn answer(&self, request: Request, stream: &UnixStream) -> Result<(), Failure> {
        self.check_role(&request)?;
        match request {
            Request::About {} => self.about(stream),
            Request::Logs { function, lines, follow } => {
                let query = Query { function: function.as_deref(), lines, follow };
                logs::answer(&self.logs, query, stream)?;
            }
            Request::Deploy { file, text, functions } => {
                let functions = chosen(&file, &text, &functions)?;
                self.deployer.deploy(&functions, |report| tell(stream, &report));
            }
            Request::Remove { functions } => {
                self.deployer.remove(&functions, |report| tell(stream, &report));
            }
            Request::Reload {} => {
                let reloaded = self.deployer.reload(|report| tell(stream, &report));
                reloaded.map_err(|error| Failure::new(FailureKind::BadRequest, error))?;
            }
            Request::HandOver {} => self.handover.serve(stream)?,
        }
        Ok(())
    }

    /// Turns away what a process of this role cannot do.
    fn check_role(&self, request: &Request) -> Result<(), Failure> {
        let message = match (request, self.role) {
            (Request::Deploy { .. } | Request::Remove { .. }, Role::Gateway) => {
                "this is a gateway, which has no functions: deploy and remove them at the engines"
            }
            (Request::Logs { .. }, Role::Gateway) => {
                "this is a gateway, which has no functions: their output is at the engines"
            }
            (Request::HandOver {}, Role::Host | Role::Engine) => {
                "only what `nightcore gateway` started can be taken over"
            }
            _ => return Ok(()),
        };
        Err(Failure::new(FailureKind::BadRequest, message))
    }

    fn about(&self, stream: &UnixStream) {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let standing = self.handover.standing.get();
        let Engine { address, role, .. } = *self;
        let about = About { pid: std::process::id(), version, address, role, standing };
        // Who does not stay for the answer does not need it.
        let _ = write_line(stream, &about);
    }
}

/// The change goes on even if nobody reads what became of it.
fn tell(stream: &UnixStream, report: &Report) {
    let _ = write_line(stream, report);
}

/// The functions of a configuration that have these names, or all.
fn chosen(file: &Path, text: &str, names: &[String]) -> Result<Vec<Function>, Failure> {
    let config = Config::read(text, file, Overrides::default())
        .map_err(|error| Failure::new(FailureKind::BadRequest, error.to_string()))?;
    let is_there = |name: &&String| config.functions.iter().any(|f| f.name == **name);
    if let Some(name) = names.iter().find(|name| !is_there(name)) {
        let text = format!("{}: there is no function \"{name}\" in it", file.display());
        return Err(Failure::new(FailureKind::NotFound, text));
    }
    let is_chosen = |f: &Function| names.is_empty() || names.contains(&f.name);
    Ok(config.functions.into_iter().filter(is_chosen).collect())
}
