//! The real `nightcore up`, from its start to its end.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::binaries::{built, in_tree};
use crate::client::{Answer, Connection, get, post};
use crate::config::with_runtime_dir;
use crate::process::Process;
use crate::watchdog::{PATIENCE, wait_until};

/// A running stack. Killed when dropped, unless it was stopped.
#[derive(Debug)]
pub struct Stack {
    run: Run,
    address: SocketAddr,
    http2: Option<SocketAddr>,
    http2_tls: Option<SocketAddr>,
    tls: Option<SocketAddr>,
    engines: Option<SocketAddr>,
}

/// Where a stack listens.
struct Addresses {
    http1: SocketAddr,
    http2: Option<SocketAddr>,
    http2_tls: Option<SocketAddr>,
    tls: Option<SocketAddr>,
    engines: Option<SocketAddr>,
}

/// How `nightcore up` ended.
#[derive(Debug)]
pub struct Ended {
    /// Exit code; none after a signal.
    pub code: Option<i32>,
    /// All it wrote to standard error.
    pub stderr: String,
    /// What it left behind in its `runtime_dir`.
    pub left: Vec<PathBuf>,
}

/// A `nightcore up` from its first moment, with a directory of its own:
/// `nightcore.toml`, `stderr`, and `run`, its `runtime_dir`.
#[derive(Debug)]
struct Run {
    child: Child,
    process: Process,
    directory: TempDir,
}

impl Stack {
    /// Starts a stack of this configuration on a free port and waits until it serves.
    ///
    /// # Panics
    /// If it does not.
    #[must_use]
    pub fn start(config: &str) -> Stack {
        Stack::start_with(config, &[])
    }

    /// The same, with variables in its environment.
    ///
    /// # Panics
    /// If it does not serve.
    #[must_use]
    pub fn start_with(config: &str, environment: &[(&str, &Path)]) -> Stack {
        let mut command = Command::new(built("nightcore"));
        command.envs(environment.iter().copied());
        Stack::serving(Run::start(command, config, "127.0.0.1:0", None))
    }

    /// Starts a stack that listens on this address.
    ///
    /// # Panics
    /// If it does not serve.
    #[must_use]
    pub fn start_at(config: &str, address: SocketAddr) -> Stack {
        let command = Command::new(built("nightcore"));
        Stack::serving(Run::start(command, config, &address.to_string(), None))
    }

    /// Starts a stack by a command of which `nightcore` is the end, as another user if one is given.
    ///
    /// # Panics
    /// If it does not serve.
    #[must_use]
    pub fn start_by(config: &str, command: Command, user: Option<u32>) -> Stack {
        Stack::serving(Run::start(command, config, "127.0.0.1:0", user))
    }

    fn serving(mut run: Run) -> Stack {
        let stdout = run.child.stdout.take().expect("it is a pipe");
        match read_addresses(stdout) {
            Some(Addresses { http1: address, http2, http2_tls, tls, engines }) => {
                Stack { run, address, http2, http2_tls, tls, engines }
            }
            None => panic!("`nightcore up` did not start: {}", run.stderr()),
        }
    }

    /// Starts another stack behind this one, which has ended, in the same `runtime_dir`.
    ///
    /// # Panics
    /// If it does not serve.
    #[must_use]
    pub fn start_behind(&self, config: &str) -> Stack {
        let config = with_runtime_dir(config, &self.runtime_dir());
        Stack::start(&config)
    }

    /// Starts the stack that the examples describe.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start_examples() -> Stack {
        let path = in_tree("examples/nightcore.toml");
        Stack::start(&fs::read_to_string(path).expect("the examples have a configuration"))
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens for HTTP/2.
    ///
    /// # Panics
    /// If it does not.
    #[must_use]
    pub fn http2_address(&self) -> SocketAddr {
        self.http2.expect("HTTP/2 is configured")
    }

    /// Where it listens for HTTP/2 over TLS.
    ///
    /// # Panics
    /// If it does not.
    #[must_use]
    pub fn http2_tls_address(&self) -> SocketAddr {
        self.http2_tls.expect("HTTP/2 over TLS is configured")
    }

    /// Where it listens for HTTP/1.1 over TLS.
    ///
    /// # Panics
    /// If it does not.
    #[must_use]
    pub fn tls_address(&self) -> SocketAddr {
        self.tls.expect("TLS is configured")
    }

    /// Where engines may join.
    ///
    /// # Panics
    /// If they may not.
    #[must_use]
    pub fn engines_address(&self) -> SocketAddr {
        self.engines.expect("a port for engines is configured")
    }

    /// The process of `nightcore`.
    #[must_use]
    pub fn process(&self) -> Process {
        self.run.process
    }

    /// Its `runtime_dir`.
    #[must_use]
    pub fn runtime_dir(&self) -> PathBuf {
        self.run.directory.path().join("run")
    }

    /// The processes of the containers.
    #[must_use]
    pub fn containers(&self) -> Vec<Process> {
        self.run.process.children()
    }

    /// Its `runtime_dir`.
    #[must_use]
    pub fn runtime_directory(&self) -> PathBuf {
        self.run.directory.path().join("run")
    }

    /// The process of a function's container, if there is one.
    #[must_use]
    pub fn container(&self, function: &str) -> Option<Process> {
        self.containers().into_iter().find(|process| process.arguments().any(|it| it == function))
    }

    /// A new connection.
    ///
    /// # Panics
    /// If it is refused.
    #[must_use]
    pub fn connect(&self) -> Connection {
        Connection::open(self.address).expect("the stack takes connections")
    }

    /// Calls a function on a connection of its own.
    #[must_use]
    pub fn call(&self, function: &str, input: &[u8]) -> Answer {
        self.connect().exchange(&post(&format!("/function/{function}"), input))
    }

    /// Gets a path on a connection of its own.
    #[must_use]
    pub fn get(&self, path: &str) -> Answer {
        self.connect().exchange(&get(path))
    }

    /// One number of a function's entry in `/v1/functions`.
    ///
    /// # Panics
    /// If there is no such function or number.
    #[must_use]
    pub fn count(&self, function: &str, key: &str) -> u64 {
        let list = self.get("/v1/functions").json();
        let functions = list["functions"].as_array().expect("a list");
        let entry = functions.iter().find(|entry| entry["name"] == function).expect("it is listed");
        entry[key].as_u64().expect("a number")
    }

    /// A number of `/metrics`, summed over its labels.
    #[must_use]
    pub fn metric(&self, name: &str) -> u64 {
        self.samples(name).iter().sum()
    }

    /// A number of `/metrics` by its whole name, labels included.
    ///
    /// # Panics
    /// If it is not there.
    #[must_use]
    pub fn metric_line(&self, series: &str) -> u64 {
        let answer = self.get("/metrics");
        let mut lines = answer.text().lines();
        let value = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.and_then(|value| value.parse().ok()).expect("it is a number there")
    }

    /// A number of `/metrics`, in the order of its labels.
    #[must_use]
    pub fn samples(&self, name: &str) -> Vec<u64> {
        let answer = self.get("/metrics");
        let samples = answer.text().lines().filter_map(|line| {
            let labels = line.strip_prefix(name)?.strip_prefix('{')?;
            labels.rsplit_once(' ')?.1.parse().ok()
        });
        samples.collect()
    }

    /// The sockets that lie in its `runtime_dir` now.
    #[must_use]
    pub fn sockets(&self) -> Vec<PathBuf> {
        let directories = entries(&self.runtime_directory());
        directories.iter().flat_map(|directory| entries(directory)).collect()
    }

    /// All it has written to standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.run.stderr()
    }

    /// Its configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.run.directory.path().join("nightcore.toml")
    }

    /// Replaces its configuration file, which it reads again at SIGHUP.
    ///
    /// # Panics
    /// If the file cannot be written.
    pub fn configure(&self, config: &str) {
        self.run.configure(config);
    }

    /// Sends a signal to `nightcore`.
    pub fn signal(&self, signal: Signal) {
        self.run.process.signal(signal);
    }

    /// Stops it as an operator does, and waits for the end.
    #[must_use]
    pub fn stop(self) -> Ended {
        self.signal(Signal::SIGTERM);
        self.wait()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it does not come.
    #[must_use]
    pub fn wait(mut self) -> Ended {
        self.run.wait()
    }
}

/// Runs `nightcore up` with a configuration with which it is not meant to serve.
///
/// # Panics
/// If it serves, or does not end.
#[must_use]
pub fn refused(config: &str) -> Ended {
    refused_at(config, "127.0.0.1:0")
}

/// The same, with an address to listen on.
///
/// # Panics
/// If it serves, or does not end.
#[must_use]
pub fn refused_at(config: &str, listen: &str) -> Ended {
    refused_by(config, Command::new(built("nightcore")), listen)
}

/// The same by a command of which `nightcore` is the end.
///
/// # Panics
/// If it serves, or does not end.
#[must_use]
pub fn refused_by(config: &str, command: Command, listen: &str) -> Ended {
    let mut run = Run::start(command, config, listen, None);
    let mut stdout = String::new();
    let mut pipe = run.child.stdout.take().expect("it is a pipe");
    let (done, watchdog) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        pipe.read_to_string(&mut stdout).expect("text");
        let _ = done.send(());
        stdout
    });
    if watchdog.recv_timeout(PATIENCE).is_err() {
        panic!("`nightcore up` neither ended nor closed its output: {}", run.stderr());
    }
    let stdout = reader.join().expect("it does not panic");
    assert_eq!(stdout, "", "`nightcore up` started: {}", run.stderr());
    run.wait()
}

impl Run {
    fn start(mut command: Command, config: &str, listen: &str, user: Option<u32>) -> Run {
        let directory = TempDir::with_prefix("nightcore-test-").expect("a temporary directory");
        let run_directory = directory.path().join("run");
        fs::create_dir(&run_directory).expect("a directory");
        let path = directory.path().join("nightcore.toml");
        configure(directory.path(), config);
        let stderr = File::create(directory.path().join("stderr")).expect("a file");
        if let Some(user) = user {
            for path in [directory.path(), &run_directory, &path] {
                chown(path, Some(user), Some(user)).expect("to be done by root");
            }
            command.uid(user).gid(user);
        }
        let child = command
            .args(["up", "--listen", listen, "--config"])
            .arg(&path)
            .env_remove("NIGHTCORE_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .expect("`nightcore` can be run");
        // Not waited for yet, so its entry is there even if it has ended.
        let process = Process::of_child(&child);
        Run { child, process, directory }
    }

    fn configure(&self, config: &str) {
        configure(self.directory.path(), config);
    }

    /// A watchdog that deletes OCI containers needs their directory for it.
    fn let_watchdog_finish(&self) {
        let run = self.directory.path().join("run");
        let end = Instant::now() + PATIENCE;
        let is_watched = |path: &PathBuf| path.join("sweep").exists();
        while entries(&run).iter().any(is_watched) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn stderr(&self) -> String {
        let bytes =
            fs::read(self.directory.path().join("stderr")).expect("it was made at the start");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn wait(&mut self) -> Ended {
        let mut status = None;
        wait_until("`nightcore up` ends", || {
            status = self.child.try_wait().expect("it is a child");
            status.is_some()
        });
        Ended {
            code: status.and_then(|status| status.code()),
            stderr: self.stderr(),
            left: entries(&self.directory.path().join("run")),
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // Its containers die with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.let_watchdog_finish();
        if std::thread::panicking() {
            eprintln!("standard error of `nightcore up`:\n{}", self.stderr());
        }
    }
}

/// Writes `nightcore.toml` for a stack that lives in this directory.
fn configure(directory: &Path, config: &str) {
    let text = with_runtime_dir(config, &directory.join("run"));
    fs::write(directory.join("nightcore.toml"), text).expect("a file");
}

/// The addresses in the summary: `... serves on http://127.0.0.1:1234` is its first line. All of it is
/// read, so that the writer is never stopped.
fn read_addresses(stdout: ChildStdout) -> Option<Addresses> {
    let (found, addresses) = mpsc::channel();
    std::thread::spawn(move || {
        let (mut http1, mut http2, mut http2_tls) = (None, None, None);
        let (mut tls, mut engines) = (None, None);
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let behind = |words: &str| {
                let (_, address) = line.split_once(words)?;
                Some(address.parse().expect("an address"))
            };
            http1 = http1.or_else(|| behind(" serves on http://"));
            http2 = http2.or_else(|| behind("  HTTP/2 and gRPC on http://"));
            http2_tls = http2_tls.or_else(|| behind("  HTTP/2 and gRPC on https://"));
            tls = tls.or_else(|| behind("  TLS on https://"));
            engines = engines.or_else(|| behind("  engines join at "));
            if let (Some(http1), true) = (http1, line.starts_with("  stop with ")) {
                let _ = found.send(Addresses { http1, http2, http2_tls, tls, engines });
            }
        }
    });
    addresses.recv_timeout(PATIENCE).ok()
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("the directory is there");
    entries.map(|entry| entry.expect("an entry").path()).collect()
}
