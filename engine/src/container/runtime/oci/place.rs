//! What the engine and the runtime have made for one container: deleted when this is dropped.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::home::Home;
use crate::container::process::pidfd_open;
use crate::container::watch::{Source, Watch};

/// A runtime that is not done by then, long after anybody waits for it, is killed.
const MAKING_MAX: Duration = Duration::from_secs(5);
/// Deletions of one container. A runtime tries for a third of a second to remove its control groups,
/// and says that it has when it has not: on a busy host its last thread may take longer to end.
const TRIES: u32 = 4;

/// Below which directories the groups of a container lie, and where kills are counted in them.
const OOM_COUNTERS: [(&str, &str); 2] =
    [("/sys/fs/cgroup/memory", "memory.oom_control"), ("/sys/fs/cgroup", "memory.events")];

/// See the module's description.
#[derive(Debug)]
pub(in crate::container) struct Place {
    home: Arc<Home>,
    id: String,
    bundle: PathBuf,
    /// A runtime that still makes the container, which nobody wants any more.
    maker: Option<Child>,
}

impl Place {
    /// Of the container of this name, which no other container of the engine has had.
    pub(super) fn make(home: &Arc<Home>, name: &str) -> io::Result<Self> {
        let (id, bundle) = (home.id(name), home.bundle(name));
        DirBuilder::new().mode(0o700).create(&bundle)?;
        Ok(Self { home: Arc::clone(home), id, bundle, maker: None })
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn bundle(&self) -> &Path {
        &self.bundle
    }

    pub(super) fn pid_file(&self) -> PathBuf {
        self.bundle.join("pid")
    }

    /// Where the runtime says what went wrong.
    pub(super) fn log(&self) -> PathBuf {
        self.bundle.join("log")
    }

    /// How often the kernel killed for the container's limit of memory; `None` where it does not say.
    pub(in crate::container) fn oom_kills(&self) -> Option<u64> {
        let counter = |(groups, file): (&str, &str)| {
            fs::read_to_string(Path::new(groups).join(&self.id).join(file)).ok()
        };
        let text = OOM_COUNTERS.into_iter().find_map(counter)?;
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok())
    }

    /// Leaves a runtime to whoever deletes the place: killed half-way it would leave control groups.
    pub(super) fn abandon(&mut self, maker: Child) {
        self.maker = Some(maker);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut delete = self.home.command(&self.log());
        delete.args(["delete", "--force", &self.id]);
        delete.stdin(Stdio::null());
        let (maker, bundle) = (self.maker.take(), self.bundle.clone());
        let state = self.home.state(&self.id);
        self.home.delete(move || {
            if let Some(mut maker) = maker {
                wait_or_kill(&mut maker);
            }
            let mut complaint = String::new();
            for _ in 0..TRIES {
                complaint = match delete.output() {
                    Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
                    Err(error) => error.to_string(),
                };
                if !state.exists() {
                    // What cannot be removed now is the watchdog's.
                    let _ = fs::remove_dir_all(&bundle);
                    return;
                }
            }
            tracing::warn!("a container is not deleted before the end: {}", complaint.trim());
        });
    }
}

fn wait_or_kill(maker: &mut Child) {
    let end = Instant::now() + MAKING_MAX;
    if let Ok(pidfd) = pidfd_open(maker.id()) {
        let mut watch = Watch::new();
        watch.add(Source::Making(0), pidfd.as_fd());
        let _ = watch.wait(Some(end));
    }
    if !matches!(maker.try_wait(), Ok(Some(_))) {
        let _ = maker.kill();
        let _ = maker.wait();
    }
}
