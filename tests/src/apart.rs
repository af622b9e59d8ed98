//! `nightcore gateway` and `nightcore engine` as processes of their own, on loopback.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::binaries::built;
use crate::client::{Answer, Connection, get, post};
use crate::process::Process;
use crate::watchdog::{PATIENCE, wait_until};

/// A directory with a key that gateways and engines have in common, and one that is another.
#[derive(Debug)]
pub struct Keys {
    directory: TempDir,
}

/// One process. Killed when dropped, unless it was stopped.
#[derive(Debug)]
pub struct Part {
    child: Child,
    process: Process,
    directory: TempDir,
    /// What it said of itself at its start.
    summary: Vec<String>,
}

impl Keys {
    /// New ones.
    ///
    /// # Panics
    /// When they cannot be written.
    #[must_use]
    pub fn new() -> Keys {
        let directory = TempDir::with_prefix("nightcore-keys-").expect("a temporary directory");
        for (name, byte) in [("link.key", "k"), ("other.key", "o")] {
            let path = directory.path().join(name);
            fs::write(&path, byte.repeat(32)).expect("a file");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("our file");
        }
        Keys { directory }
    }

    /// The common one.
    #[must_use]
    pub fn link(&self) -> PathBuf {
        self.directory.path().join("link.key")
    }

    /// Somebody else's.
    #[must_use]
    pub fn other(&self) -> PathBuf {
        self.directory.path().join("other.key")
    }
}

impl Default for Keys {
    fn default() -> Keys {
        Keys::new()
    }
}

impl Part {
    /// A gateway of one shard, whose metrics are those of all. `engines` is where engines join.
    ///
    /// # Panics
    /// If it does not serve.
    #[must_use]
    pub fn gateway(engines: &str, key: &Path) -> Part {
        let config = format!(
            "[gateway]\nlisten = \"127.0.0.1:0\"\n\
             [gateway.engines]\nlisten = \"{engines}\"\nkey_file = \"{}\"\n\
             [engine]\nshards = 1\ndrain_timeout = \"10s\"\n",
            key.display()
        );
        Part::start("gateway", &config)
    }

    /// The same, where engines of this host join by a path, without a proof.
    ///
    /// # Panics
    /// If it does not serve.
    #[must_use]
    pub fn gateway_by(path: &Path) -> Part {
        let config = format!(
            "[gateway]\nlisten = \"127.0.0.1:0\"\n\
             [gateway.engines]\npath = \"{}\"\ninsecure = true\n\
             [engine]\nshards = 1\ndrain_timeout = \"10s\"\n",
            path.display()
        );
        Part::start("gateway", &config)
    }

    /// An engine of two shards with these functions, as a configuration has them.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn engine(gateways: &[SocketAddr], key: &Path, functions: &str) -> Part {
        let names: Vec<String> = gateways.iter().map(|it| format!("\"{it}\"")).collect();
        let config = format!(
            "[engine]\nnode = \"host-1\"\nshards = 2\ncontainer = \"process\"\n\
             drain_timeout = \"10s\"\ngateways = [{}]\n\
             [engine.link]\nkey_file = \"{}\"\n{functions}",
            names.join(", "),
            key.display()
        );
        Part::start("engine", &config)
    }

    /// The same, at the gateway that it reaches by a path.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn engine_by(path: &Path, functions: &str) -> Part {
        let config = format!(
            "[engine]\nnode = \"host-1\"\nshards = 2\ncontainer = \"process\"\n\
             drain_timeout = \"10s\"\ngateways = [\"unix:{}\"]\n\
             [engine.link]\ninsecure = true\n{functions}",
            path.display()
        );
        Part::start("engine", &config)
    }

    fn start(role: &str, config: &str) -> Part {
        let directory = TempDir::with_prefix("nightcore-apart-").expect("a temporary directory");
        let run = directory.path().join("run");
        fs::create_dir(&run).expect("a directory");
        let path = directory.path().join("nightcore.toml");
        let config = crate::config::with_runtime_dir(config, &run);
        fs::write(&path, config).expect("a file");
        let stderr = File::create(directory.path().join("stderr")).expect("a file");
        let mut child = Command::new(built("nightcore"))
            .args([role, "--config"])
            .arg(&path)
            .env_remove("NIGHTCORE_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .expect("`nightcore` can be run");
        let process = Process::of_child(&child);
        let stdout = child.stdout.take().expect("it is a pipe");
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let is_last = line.contains("stop with");
                if sender.send(line).is_err() || is_last {
                    return;
                }
            }
        });
        let mut part = Part { child, process, directory, summary: Vec::new() };
        while !part.summary.last().is_some_and(|line| line.contains("stop with")) {
            match lines.recv_timeout(PATIENCE) {
                Ok(line) => part.summary.push(line),
                Err(_) => panic!("`nightcore {role}` did not start: {}", part.stderr()),
            }
        }
        part
    }

    /// Where clients come.
    ///
    /// # Panics
    /// If none do.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.told("serves on http://")
    }

    /// Where engines join.
    ///
    /// # Panics
    /// If none do.
    #[must_use]
    pub fn engines(&self) -> SocketAddr {
        self.told("engines join at ")
    }

    fn told(&self, before: &str) -> SocketAddr {
        let line = self.summary.iter().find_map(|line| Some(line.split_once(before)?.1));
        line.and_then(|text| text.trim().parse().ok()).expect("it has told its address")
    }

    /// The process.
    #[must_use]
    pub fn process(&self) -> Process {
        self.process
    }

    /// All it has logged so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        fs::read_to_string(self.directory.path().join("stderr")).unwrap_or_default()
    }

    /// Calls a function on a connection of its own.
    ///
    /// # Panics
    /// If the connection is refused.
    #[must_use]
    pub fn call(&self, function: &str, input: &[u8]) -> Answer {
        let mut connection = Connection::open(self.address()).expect("it takes connections");
        connection.exchange(&post(&format!("/function/{function}"), input))
    }

    /// Gets a path on a connection of its own.
    ///
    /// # Panics
    /// If the connection is refused.
    #[must_use]
    pub fn get(&self, path: &str) -> Answer {
        Connection::open(self.address()).expect("it takes connections").exchange(&get(path))
    }

    /// A number of `/metrics`, summed over its labels.
    #[must_use]
    pub fn metric(&self, name: &str) -> u64 {
        let answer = self.get("/metrics");
        let samples = answer.text().lines().filter_map(|line| {
            let labels = line.strip_prefix(name)?.strip_prefix('{')?;
            labels.rsplit_once(' ')?.1.parse::<u64>().ok()
        });
        samples.sum()
    }

    /// Waits until a function answers.
    ///
    /// # Panics
    /// If it never does.
    pub fn wait_for(&self, function: &str) {
        wait_until(&format!("{function} is served"), || self.call(function, b"x").status == 200);
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits for its end, and gives its exit code; none after a signal.
    ///
    /// # Panics
    /// If it does not end.
    pub fn wait(mut self) -> Option<i32> {
        let mut code = None;
        wait_until("it ends", || match self.child.try_wait().expect("our child") {
            Some(status) => {
                code = status.code();
                true
            }
            None => false,
        });
        code
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // It may have ended just now.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
