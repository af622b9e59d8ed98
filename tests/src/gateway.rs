//! `nightcore gateway` processes of one host: they share a configuration and a `runtime_dir`, as a
//! gateway and its successor do.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::binaries::built;
use crate::config::with_runtime_dir;
use crate::process::Process;
use crate::watchdog::wait_until;

/// A directory with `gateway.toml`, and `run`, the `runtime_dir`.
#[derive(Debug)]
pub struct Site {
    directory: TempDir,
    /// Processes that were started, which names their files.
    started: AtomicU32,
}

/// A running process. Killed when dropped.
#[derive(Debug)]
pub struct Gateway {
    child: Child,
    process: Process,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Site {
    /// A site whose gateways have this configuration.
    ///
    /// # Panics
    /// If there is no room for it.
    #[must_use]
    pub fn new(config: &str) -> Site {
        let directory = TempDir::with_prefix("nightcore-test-").expect("a temporary directory");
        fs::create_dir(directory.path().join("run")).expect("a directory");
        let site = Site { directory, started: AtomicU32::new(0) };
        site.configure(config);
        site
    }

    /// Replaces the configuration.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn configure(&self, config: &str) {
        let text = with_runtime_dir(config, &self.runtime_dir());
        fs::write(self.config(), text).expect("a file");
    }

    /// The configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.directory.path().join("gateway.toml")
    }

    /// The `runtime_dir`.
    #[must_use]
    pub fn runtime_dir(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    /// Starts `nightcore` as this role with these options, and does not wait for anything.
    ///
    /// # Panics
    /// If it cannot be run.
    #[must_use]
    pub fn launch(&self, role: &str, options: &[&str]) -> Gateway {
        // SYNC(started): a plain counter.
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let path = |stream: &str| self.directory.path().join(format!("{number}.{stream}"));
        let (stdout, stderr) = (path("stdout"), path("stderr"));
        let child = Command::new(built("nightcore"))
            .arg(role)
            .args(options)
            .arg("--config")
            .arg(self.config())
            .env_remove("NIGHTCORE_LOG")
            .stdin(Stdio::null())
            .stdout(File::create(&stdout).expect("a file"))
            .stderr(File::create(&stderr).expect("a file"))
            .spawn()
            .expect("`nightcore` can be run");
        // Not waited for yet, so its entry is there even if it has ended.
        let process = Process::of_child(&child);
        Gateway { child, process, stdout, stderr }
    }

    /// Starts a gateway with these options and waits until it serves.
    ///
    /// # Panics
    /// If it does not.
    #[must_use]
    pub fn start(&self, options: &[&str]) -> Gateway {
        let mut gateway = self.launch("gateway", options);
        wait_until("the gateway serves, or ends", || {
            gateway.address().is_some() || gateway.has_ended()
        });
        assert!(gateway.address().is_some(), "it did not serve: {}", gateway.stderr());
        gateway
    }

    /// Runs another command of `nightcore` on the engine of this site, to its end.
    ///
    /// # Panics
    /// If it cannot be run.
    #[must_use]
    pub fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(built("nightcore"));
        command.args(arguments).arg("--runtime-dir").arg(self.runtime_dir());
        command.stdin(Stdio::null()).output().expect("`nightcore` can be run")
    }
}

impl Site {
    /// What `nightcore ls` shows of the gateway there.
    ///
    /// # Panics
    /// If it fails.
    #[must_use]
    pub fn list(&self, address: SocketAddr) -> String {
        let mut command = Command::new(built("nightcore"));
        command.args(["ls", "--gateway", &format!("http://{address}")]);
        let output = command.stdin(Stdio::null()).output().expect("`nightcore` can be run");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }
}

impl Gateway {
    /// Its process.
    #[must_use]
    pub fn process(&self) -> Process {
        self.process
    }

    /// Where it serves; `None` until it does.
    ///
    /// # Panics
    /// If it prints something else for an address.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.printed(" serves on http://")
    }

    /// Where it tells of itself, if it serves and has a port for that.
    ///
    /// # Panics
    /// If it prints something else for an address.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.printed("state and metrics on http://")
    }

    /// Where engines join, if it serves and has a port for them.
    ///
    /// # Panics
    /// If it prints something else for an address.
    #[must_use]
    pub fn engines_address(&self) -> Option<SocketAddr> {
        self.printed("engines join at ")
    }

    fn printed(&self, before: &str) -> Option<SocketAddr> {
        let text = read(&self.stdout);
        // A line that is there as a whole.
        let lines = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
        let mut found = lines.filter_map(|line| line.split_once(before));
        found.next().map(|(_, address)| address.parse().expect("an address"))
    }

    /// All it has written to standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        read(&self.stderr)
    }

    /// Whether it has ended.
    ///
    /// # Panics
    /// If the system does not know.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it is a child").is_some()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits for its end and gives its exit code; none after a signal.
    ///
    /// # Panics
    /// If it does not end.
    pub fn wait(&mut self) -> Option<i32> {
        wait_until("the process ends", || self.has_ended());
        self.child.wait().expect("it is a child").code()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("standard error of process {}:\n{}", self.process.pid, self.stderr());
        }
    }
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).expect("it was made at the start")).into_owned()
}
