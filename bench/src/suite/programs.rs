//! Where the programs are that a run needs, and which are missing.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::cases::{Case, Job, Target, Tool};

/// Where Debian puts nginx, which is not in everybody's PATH.
const ALSO: &str = "/usr/sbin";

/// Paths of what may be started; nothing where it is not installed.
#[derive(Clone, Debug)]
pub struct Programs {
    /// This executable, for its other subcommands.
    pub bench: PathBuf,
    /// The runtime; containers and functions are beside it.
    pub nightcore: Option<PathBuf>,
    /// The comparison targets.
    pub peer: Option<PathBuf>,
    /// Cloudflare's runtime.
    pub workerd: Option<PathBuf>,
    /// Its configuration.
    pub workerd_config: PathBuf,
    /// From the system.
    pub nginx: Option<PathBuf>,
    /// From the system.
    pub strace: Option<PathBuf>,
}

impl Programs {
    /// Looks beside this executable (`target/release`), in the target directory, and in the system.
    #[must_use]
    pub fn find() -> Programs {
        let bench = env::current_exe().unwrap_or_else(|_| PathBuf::from("nightcore-bench"));
        let release = bench.parent().unwrap_or(Path::new(".")).to_owned();
        let target = release.parent().unwrap_or(Path::new(".")).to_owned();
        Programs {
            nightcore: existing(release.join("nightcore")),
            peer: existing(target.join("peers/release/peer")),
            workerd: existing(target.join("peers/workerd/workerd")),
            workerd_config: PathBuf::from("bench/peers/workerd/config.capnp"),
            nginx: in_path("nginx"),
            strace: in_path("strace"),
            bench,
        }
    }

    /// Why `case` cannot be measured here, if it cannot.
    #[must_use]
    pub fn missing(&self, case: &Case) -> Option<String> {
        let missing = |name: &str, path: &Option<PathBuf>| {
            path.is_none().then(|| format!("{name} is not installed"))
        };
        let by_target = match case.target {
            Target::Nothing => None,
            Target::Nightcore(_) => missing("nightcore", &self.nightcore),
            Target::Nginx(_) | Target::NginxProxy(_) => missing("nginx", &self.nginx),
            Target::Hyper(_) | Target::Rpc(..) => missing("peer (bench/peers)", &self.peer),
            Target::Workerd => missing("workerd", &self.workerd),
        };
        by_target.or_else(|| match case.job {
            Job::Syscalls(_) => missing("strace", &self.strace),
            Job::Tool(Tool::IceoryxBusy | Tool::IceoryxEvent) => {
                missing("peer (bench/peers)", &self.peer)
            }
            _ => None,
        })
    }
}

fn existing(path: PathBuf) -> Option<PathBuf> {
    path.exists().then_some(path)
}

fn in_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = env::split_paths(&path).chain([PathBuf::from(ALSO)]);
    directories.map(|directory| directory.join(name)).find(|path| path.is_file())
}

/// The first line that a program prints about its version.
#[must_use]
pub fn version(program: &Path, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).lines().next()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}
