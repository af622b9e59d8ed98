//! A stack that is locked, the keys to it, and the commands for both.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use nightcore_tests::functions::build;
use nightcore_tests::{Answer, Connection, Stack, binaries, config, functions, request};
use tempfile::TempDir;

/// A directory with the files of keys, from before the stack that reads them.
pub struct Lock {
    pub directory: TempDir,
}

impl Lock {
    pub fn new() -> Lock {
        Lock { directory: TempDir::with_prefix("nightcore-lock-").expect("a temporary directory") }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).expect("a file");
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Makes a key by the command, adds its lines to `keys.toml`, and gives the key.
    pub fn add_key(&self, id: &str, options: &[&str]) -> String {
        let arguments = [&["key", "new", id, "--client", "shop"], options].concat();
        let made = nightcore(&arguments, "");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let table = String::from_utf8(made.stdout).expect("text");
        self.write("keys.toml", self.read("keys.toml") + &table);
        String::from_utf8(made.stderr).expect("text").trim().to_owned()
    }

    /// A stack with `echo` and `inspect` whose configuration has these lines and names `keys.toml`.
    pub fn start(&self, lines: &str) -> Stack {
        let keys = self.path("keys.toml");
        self.start_with(&format!("{lines}[auth]\nkeys_file = \"{}\"\n", keys.display()))
    }

    /// The same without keys but those of the lines.
    pub fn start_with(&self, lines: &str) -> Stack {
        let inspect = config::function("inspect", &build("inspect", self.directory.path()));
        Stack::start(&format!("{lines}{}{inspect}", functions(&["echo"])))
    }
}

/// Runs the command with this standard input.
pub fn nightcore(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(binaries::built("nightcore"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("`nightcore` can be run");
    let mut stdin = child.stdin.take().expect("it is a pipe");
    // One that does not read it has its reasons.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

/// `nightcore reload`: its exit code and what it said.
pub fn reload(stack: &Stack) -> (Option<i32>, String) {
    let directory = stack.runtime_dir();
    let place = ["reload", "--runtime-dir", directory.to_str().expect("text")];
    let output = nightcore(&place, "");
    (output.status.code(), String::from_utf8(output.stdout).expect("text"))
}

pub fn bearer(key: &str) -> String {
    format!("Authorization: Bearer {key}\r\n")
}

/// Calls a function with these header lines on that connection.
pub fn call(connection: &mut Connection, function: &str, headers: &str) -> Answer {
    connection.exchange(&request("POST", &format!("/function/{function}"), headers, b"hi"))
}
