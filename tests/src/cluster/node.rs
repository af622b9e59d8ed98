//! One `nightcore gateway` or `nightcore engine`, from its start to its end.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;

use super::network::{Host, Network};
use crate::binaries::built;
use crate::process::Process;
use crate::watchdog::wait_until;

/// Of what a process wrote, this much is shown when its test fails.
const SHOWN_LINES: usize = 60;
const SHOWN_COLUMNS: usize = 250;

/// A running process. Killed when dropped, unless it has ended.
#[derive(Debug)]
pub struct Node {
    name: String,
    child: Child,
    process: Process,
    log: PathBuf,
}

impl Node {
    /// Starts `nightcore` with these arguments on a host. Its log is a file in `directory` that has its
    /// name.
    ///
    /// # Panics
    /// If it cannot be run.
    #[must_use]
    pub fn start(
        network: &Network,
        host: Host,
        name: &str,
        directory: &Path,
        arguments: &[&OsStr],
    ) -> Node {
        let log = directory.join(format!("{name}.log"));
        let output = File::create(&log).expect("a file");
        let errors = output.try_clone().expect("a descriptor");
        let mut command = Command::new(built("nightcore"));
        command
            .args(arguments)
            .current_dir(directory)
            .env_remove("NIGHTCORE_LOG")
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors);
        let child = network.within(host, || command.spawn().expect("`nightcore` can be run"));
        // Not waited for yet, so its entry is there even if it has ended.
        let process = Process::of_child(&child);
        Node { name: name.to_owned(), child, process, log }
    }

    /// What it is called in logs and answers.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process.
    #[must_use]
    pub fn process(&self) -> Process {
        self.process
    }

    /// All it has written so far.
    ///
    /// # Panics
    /// If its file is gone.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).expect("a file")).into_owned()
    }

    /// Whether it has ended.
    ///
    /// # Panics
    /// If the system does not know.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it is a child").is_some()
    }

    /// Asks it to end, as an operator does. [`Node::expect_clean_end`] waits for it.
    pub fn terminate(&self) {
        self.process.signal(Signal::SIGTERM);
    }

    /// Kills it with all its containers, and waits until it is dead.
    ///
    /// # Panics
    /// If it cannot be.
    pub fn kill(mut self) {
        self.child.kill().expect("it is a child");
        self.child.wait().expect("it is a child");
    }

    /// Holds it where it is. Its connections stay, and say nothing.
    pub fn hold(&self) {
        self.process.signal(Signal::SIGSTOP);
        wait_until("it is held", || self.process.is_stopped());
    }

    /// Lets it go on.
    pub fn release(&self) {
        self.process.signal(Signal::SIGCONT);
    }

    /// Waits until it has ended by itself, and well.
    ///
    /// # Panics
    /// If it does not.
    pub fn expect_clean_end(mut self) {
        let mut status = None;
        wait_until(&format!("{} ends", self.name), || {
            status = self.child.try_wait().expect("it is a child");
            status.is_some()
        });
        let code = status.and_then(|status| status.code());
        assert_eq!(code, Some(0), "{} did not end well", self.name);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let hidden = lines.len().saturating_sub(SHOWN_LINES);
            eprintln!("log of {}, without {hidden} lines before:", self.name);
            for line in &lines[hidden..] {
                eprintln!("  {}", line.chars().take(SHOWN_COLUMNS).collect::<String>());
            }
        }
    }
}
