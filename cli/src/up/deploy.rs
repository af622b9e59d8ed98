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

use super::entrance::Entrance;
use super::plan::Plan;
use super::tls::Identities;
use crate::admin::Report;
use crate::config::{Config, Function};

/// See the module's description. Whoever calls it waits until the change is done.
#[derive(Debug)]
pub(super) struct Deployer {
    file: PathBuf,
    plan: Plan,
    entrance: Entrance,
    identities: Identities,
    supervisor: Post<ToSupervisor>,
    /// Held during a change.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The configuration as it was read last.
    config: Config,
    serving: HashMap<String, Served>,
}

/// A function that is served, and the file that its library was when it was deployed.
#[derive(Debug)]
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

impl Deployer {
    pub(super) fn new(
        config: &Config,
        plan: Plan,
        entrance: Entrance,
        identities: Identities,
        supervisor: Post<ToSupervisor>,
    ) -> Self {
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
        Self { file: config.file.clone().into(), plan, entrance, identities, supervisor, state }
    }

    /// Deploys these functions, each as the next version of the one of its name, if there is one.
    pub(super) fn deploy(&self, functions: &[Function], mut tell: impl FnMut(Report)) {
        let mut state = self.state();
        functions.iter().for_each(|function| tell(self.deploy_one(&mut state, function)));
    }

    /// Removes functions once their last calls have ended.
    pub(super) fn remove(&self, names: &[String], mut tell: impl FnMut(Report)) {
        let mut state = self.state();
        names.iter().for_each(|name| tell(self.remove_one(&mut state, name)));
    }

    /// Reads the configuration file again, and deploys and removes what differs from what is served. The
    /// files of keys are read again first: a key that was taken away does not wait for a container.
    ///
    /// # Errors
    /// When the file cannot be used; nothing is changed then.
    pub(super) fn reload(&self, mut tell: impl FnMut(Report)) -> Result<(), String> {
        let mut state = self.state();
        let config = Config::load(&self.file, state.config.overrides);
        let config = config.map_err(|error| error.to_string())?;
        self.entrance.reload().into_iter().for_each(&mut tell);
        self.identities.reload().into_iter().for_each(&mut tell);
        for function in &config.functions {
            if !state.serving.get(&function.name).is_some_and(|served| served.is(function)) {
                tell(self.deploy_one(&mut state, function));
            }
        }
        let is_wanted = |name: &String| config.functions.iter().any(|f| f.name == *name);
        let mut gone: Vec<_> =
            state.serving.keys().filter(|name| !is_wanted(name)).cloned().collect();
        gone.sort_unstable();
        gone.iter().for_each(|name| tell(self.remove_one(&mut state, name)));
        for section in state.differing_sections(&config) {
            let message = "a change takes effect with the next start only".to_owned();
            tell(Report { function: section.to_owned(), done: false, message });
        }
        state.config = config;
        Ok(())
    }

    fn deploy_one(&self, state: &mut State, function: &Function) -> Report {
        let name = &function.name;
        let version = state.serving.get(name).map_or(1, |served| served.version.wrapping_add(1));
        // Before the container opens it: a file that is replaced meanwhile counts as another one.
        let library = Identity::of(&function.library);
        let deployment = self.plan.deployment(function, version).map_err(|e| e.to_string());
        let changed = deployment.and_then(|d| self.change(Wanted::Deploy(Box::new(d))));
        if changed.is_ok() {
            let served = Served { function: function.clone(), library, version };
            state.serving.insert(name.clone(), served);
        }
        report(name, version, changed)
    }

    fn remove_one(&self, state: &mut State, name: &str) -> Report {
        let version = state.serving.get(name).map_or(0, |served| served.version);
        let changed = self.change(Wanted::Remove(name.to_owned()));
        if changed.is_ok() {
            state.serving.remove(name);
        }
        report(name, version, changed)
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
        if self.config.auth != next.auth {
            sections.push("[auth]");
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
            match deployer.reload(log) {
                Ok(()) => tracing::info!("reloaded {}", deployer.file.display()),
                Err(error) => tracing::error!("not reloaded: {error}"),
            }
        }
    };
    let thread = thread::Builder::new().name("reload".to_owned()).spawn(body);
    if let Err(error) = thread {
        tracing::warn!("SIGHUP has no effect: {error}");
    }
}

fn log(Report { function, done, message }: Report) {
    match done {
        true => tracing::info!(function, "{message}"),
        false => tracing::error!(function, "not as configured: {message}"),
    }
}

fn report(name: &str, version: u32, changed: Result<Changed, String>) -> Report {
    let done = changed.is_ok();
    let message = match changed {
        Ok(Changed::Deployed { pid, .. }) => format!("version {version} serves, process {pid}"),
        Ok(Changed::Removed) => "removed".to_owned(),
        Err(reason) => reason,
    };
    Report { function: name.to_owned(), done, message }
}
