//! Changes of what is served, one after the other: functions deployed, updated and removed by hand, and
//! the configuration file read again.

use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;

use engine::container::{Change, Changed, Wanted};
use engine::mailbox::{Post, ToSupervisor};
use nix::sys::signalfd::SignalFd;

use super::plan::Plan;
use crate::config::{Config, Function};

/// See the module's description. Whoever calls it waits until the change is done.
pub(super) struct Deployer {
    file: PathBuf,
    plan: Plan,
    supervisor: Post<ToSupervisor>,
    /// Held during a change.
    state: Mutex<State>,
}

struct State {
    /// The configuration as it was read last.
    config: Config,
    serving: HashMap<String, Served>,
}

/// A function that is served, and the file that its library was when it was deployed.
struct Served {
    function: Function,
    library: Identity,
    version: u32,
}

/// Tells one content of a file from another, as far as its metadata does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified_ns: i128,
}

/// What became of one function, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) function: String,
    /// What was done; the error in one line if it could not be.
    pub(crate) outcome: Result<String, String>,
}

impl Deployer {
    pub(super) fn new(config: &Config, plan: Plan, supervisor: Post<ToSupervisor>) -> Self {
        let served = |function: &Function| {
            let served = Served {
                function: function.clone(),
                library: Identity::of(&function.library),
                version: 1,
            };
            (function.name.clone(), served)
        };
        let serving = config.functions.iter().map(served).collect();
        let state = Mutex::new(State { config: config.clone(), serving });
        Self { file: config.file.clone().into(), plan, supervisor, state }
    }

    /// Deploys these functions, each as the next version of the one of its name, if there is one.
    pub(crate) fn deploy(&self, functions: &[Function]) -> Vec<Report> {
        let mut state = self.state();
        functions.iter().map(|function| self.deploy_one(&mut state, function)).collect()
    }

    /// Removes a function once its last call has ended.
    pub(crate) fn remove(&self, name: &str) -> Report {
        self.remove_one(&mut self.state(), name)
    }

    /// Reads the configuration file again, and deploys and removes what differs from what is served.
    ///
    /// # Errors
    /// When the file cannot be used; nothing is changed then.
    pub(crate) fn reload(&self) -> Result<Vec<Report>, String> {
        let mut state = self.state();
        let config = Config::load(&self.file, state.config.overrides);
        let config = config.map_err(|error| error.to_string())?;
        let mut reports = Vec::new();
        let is_wanted = |name: &String| config.functions.iter().any(|f| f.name == *name);
        let gone: Vec<_> = state.serving.keys().filter(|name| !is_wanted(name)).cloned().collect();
        for function in &config.functions {
            if !state.serving.get(&function.name).is_some_and(|served| served.is(function)) {
                reports.push(self.deploy_one(&mut state, function));
            }
        }
        for name in gone {
            reports.push(self.remove_one(&mut state, &name));
        }
        for section in state.differing_sections(&config) {
            let outcome = Err("a change takes effect with the next start only".to_owned());
            reports.push(Report { function: section.to_owned(), outcome });
        }
        state.config = config;
        Ok(reports)
    }

    fn deploy_one(&self, state: &mut State, function: &Function) -> Report {
        let name = &function.name;
        let version = state.serving.get(name).map_or(1, |served| served.version.wrapping_add(1));
        // Before the container opens it: a file that is replaced meanwhile counts as another one.
        let library = Identity::of(&function.library);
        let deployment = self.plan.deployment(function, version).map_err(|e| e.to_string());
        let changed = deployment.and_then(|d| self.change(Wanted::Deploy(Box::new(d))));
        let outcome = changed.map(|changed| {
            let served = Served { function: function.clone(), library, version };
            state.serving.insert(name.clone(), served);
            match changed {
                Changed::Deployed { pid, .. } => format!("version {version} serves, pid {pid}"),
                Changed::Removed => "removed".to_owned(),
            }
        });
        Report { function: name.clone(), outcome }
    }

    fn remove_one(&self, state: &mut State, name: &str) -> Report {
        let outcome = self.change(Wanted::Remove(name.to_owned()));
        if outcome.is_ok() {
            state.serving.remove(name);
        }
        Report { function: name.to_owned(), outcome: outcome.map(|_| "removed".to_owned()) }
    }

    fn change(&self, what: Wanted) -> Result<Changed, String> {
        let (reply, outcome) = mpsc::channel();
        self.supervisor.send(ToSupervisor::Change(Change { what, reply }));
        outcome.recv().unwrap_or_else(|_| Err("the engine is being stopped".to_owned()))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // Every change leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What a reload does not change.
    fn differing_sections(&self, next: &Config) -> Vec<&'static str> {
        let mut sections = Vec::new();
        if self.config.gateway != next.gateway {
            sections.push("[gateway]");
        }
        if self.config.engine != next.engine {
            sections.push("[engine]");
        }
        sections
    }
}

impl Served {
    /// Whether that is what is served already; where it stands in the file does not matter.
    fn is(&self, function: &Function) -> bool {
        let line = self.function.line;
        self.function == Function { line, ..function.clone() }
            && self.library == Identity::of(&function.library)
    }
}

impl Identity {
    /// All zero for a file that is not there.
    fn of(path: &Path) -> Identity {
        let of = |metadata: Metadata| Identity {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified_ns: i128::from(metadata.mtime()) * 1_000_000_000
                + i128::from(metadata.mtime_nsec()),
        };
        let none = Identity { device: 0, inode: 0, size: 0, modified_ns: 0 };
        std::fs::metadata(path).map_or(none, of)
    }
}

/// Reloads at every SIGHUP, on a thread that ends with the process.
pub(super) fn reload_on_hangup(hangups: SignalFd, deployer: Arc<Deployer>) {
    let body = move || {
        while let Ok(Some(_)) = hangups.read_signal() {
            match deployer.reload() {
                Ok(reports) if reports.is_empty() => tracing::info!("reloaded: nothing differs"),
                Ok(reports) => reports.iter().for_each(log),
                Err(error) => tracing::error!("not reloaded: {error}"),
            }
        }
    };
    let thread = thread::Builder::new().name("reload".to_owned()).spawn(body);
    if let Err(error) = thread {
        tracing::warn!("SIGHUP has no effect: {error}");
    }
}

fn log(Report { function, outcome }: &Report) {
    match outcome {
        Ok(text) => tracing::info!("reload: {function}: {text}"),
        Err(error) => tracing::error!("reload: {function}: {error}"),
    }
}
