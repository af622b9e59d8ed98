//! A container in a sandbox: the way containers are run unless the configuration says otherwise.
//!
//! The engine makes a child in a process id namespace of its own (where the engine may not, in a user
//! namespace of its own as well), which executes `nightcore-worker`. That connects to the control
//! socket, confines itself as its arguments say, and only then loads the function's library: see
//! `sandbox` in `nightcore`'s `host`. It is the first process of its namespace, so that its end is
//! the end of all it started, and its pid and pidfd are those of the container.

mod probe;
mod spawn;

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::OnceLock;

use self::probe::Permitted;
use self::spawn::Birth;
use super::process::environment;
use super::{ContainerSpec, Group, HostSpec, Process, Runtime, Start, cgroup};

/// See the module's description.
#[derive(Debug)]
pub(super) struct Sandbox {
    worker: PathBuf,
    require: bool,
    /// Found out with the first container, and told then.
    permitted: OnceLock<Permitted>,
}

impl Sandbox {
    pub(super) fn new(host: &HostSpec) -> Self {
        Self { worker: host.worker.clone(), require: host.require, permitted: OnceLock::new() }
    }

    fn permitted(&self) -> &Permitted {
        self.permitted.get_or_init(|| {
            let permitted = Permitted::find_out();
            let missing = permitted.missing();
            if !missing.is_empty() && !self.require {
                tracing::warn!("this host does not let sandboxes have {}", missing.join(", "));
            }
            permitted
        })
    }
}

impl Runtime for Sandbox {
    fn permit(&self) -> io::Result<()> {
        let missing = self.permitted().missing();
        if self.require && !missing.is_empty() {
            let lacks = format!("this host does not let it have {}", missing.join(", "));
            return Err(io::Error::new(io::ErrorKind::Unsupported, lacks));
        }
        Ok(())
    }

    fn start(&self, start: Start<'_>) -> io::Result<Process> {
        let permitted = self.permitted();
        let spec = start.spec;
        if let Some(name) = spec.env.iter().map(|(name, _)| name).find(|name| loads_code(name)) {
            let early = format!("{name} in its env would load code before the sandbox stands");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, early));
        }
        let mut arguments = vec![self.worker.clone().into_os_string()];
        arguments.extend(confinement(spec, permitted, start.index));
        // Nothing of the engine's user is there.
        let home = ("HOME".into(), OsString::from("/tmp"));
        let given = environment(spec, start.socket).filter(|(name, _)| name != OsStr::new("HOME"));
        let own = spec.env.iter().any(|(name, _)| name == "HOME");
        let environment = std::iter::once(home).filter(|_| !own).chain(given);
        let birth = Birth {
            program: text(self.worker.clone())?,
            arguments: arguments.into_iter().map(text).collect::<io::Result<_>>()?,
            environment: environment.map(variable).collect::<io::Result<_>>()?,
            output: start.output,
            namespaces: permitted.born_into(),
            // Where no control group limits it.
            memory: spec.limits.memory.filter(|_| !start.group.limits_memory()),
            group: start.group,
            niceness: spec.niceness,
        };
        birth.give()
    }
}

/// The arguments by which the worker confines itself.
fn confinement(spec: &ContainerSpec, permitted: &Permitted, index: usize) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["--library".into(), spec.library.clone().into()];
    arguments.extend(["--function".into(), spec.name.clone().into(), "--sandbox".into()]);
    arguments.extend(["--namespaces".into(), permitted.namespaces(spec.network).into()]);
    if let Some(user) = permitted.user(index) {
        arguments.extend(["--user".into(), user.to_string().into()]);
    }
    if spec.network {
        arguments.push("--network".into());
    }
    for path in &spec.read_only {
        arguments.extend(["--read-only".into(), path.clone().into()]);
    }
    arguments
}

/// Whether the dynamic linker takes orders from the variable when `nightcore-worker` is executed.
fn loads_code(name: &str) -> bool {
    name.starts_with("LD_") || name == "GLIBC_TUNABLES"
}

fn variable((name, value): (OsString, OsString)) -> io::Result<CString> {
    let mut pair = name;
    pair.push("=");
    pair.push(value);
    text(pair)
}

fn text(value: impl Into<OsString>) -> io::Result<CString> {
    Ok(CString::new(value.into().into_vec())?)
}
