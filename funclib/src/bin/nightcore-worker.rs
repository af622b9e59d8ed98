//! The process of a container: `nightcore-worker --library PATH --function NAME`, started by the
//! engine, which says in `NIGHTCORE_SOCKET` where it listens.
//!
//! Exit codes: 0 the engine said so or went away, 1 the engine cannot be talked to, 2 the command
//! line or the library is wrong.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nightcore::host::launcher::{self, LauncherError};
use nightcore::host::sandbox::Sandbox;

const USAGE: &str = "\
The process of one function's container. Started by the nightcore engine.

Usage: nightcore-worker --library PATH --function NAME

  --library PATH    shared library of the function, interface v1 or v2
  --function NAME   name it is deployed under
  --sandbox         confine the process before the library is loaded:
    --namespaces LIST   make these: mount,ipc,uts,cgroup,net
    --user NUMBER       become this user and group
    --read-only PATH    let the function read this as well; any number of times
    --network           let it use the network
  --help, --version

Environment:
  NIGHTCORE_SOCKET  control socket of the engine";

/// A worker thread has three, and there are 128 of them unless the configuration says otherwise.
const DESCRIPTORS: u64 = 1024;

enum Command {
    Serve { library: PathBuf, function: String, sandbox: Option<Sandbox> },
    Say(String),
}

fn main() -> ExitCode {
    let command = match parse(env::args_os().skip(1)) {
        Ok(command) => command,
        Err(message) => {
            eprintln!("nightcore-worker: {message}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match command {
        Command::Say(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Command::Serve { library, function, sandbox } => {
            serve(&library, &function, sandbox.as_ref())
        }
    }
}

fn serve(library: &Path, function: &str, sandbox: Option<&Sandbox>) -> ExitCode {
    let Some(socket) = env::var_os("NIGHTCORE_SOCKET") else {
        eprintln!("nightcore-worker: NIGHTCORE_SOCKET is not set: this is started by the engine");
        return ExitCode::from(2);
    };
    ipc::descriptor_table::reserve(DESCRIPTORS);
    share_heaps();
    print_whole_lines();
    // SAFETY: whoever deployed the function named this library to be run in this container.
    let served = unsafe { launcher::run(library, function, &PathBuf::from(socket), sandbox) };
    let code = match served {
        Ok(()) => 0,
        // The engine was told, and tells whoever started it.
        Err(LauncherError::Load(_) | LauncherError::Sandbox(_)) => 2,
        Err(error) => {
            eprintln!("nightcore-worker: function {function}: {error}");
            1
        }
    };
    // SAFETY: ends the process as it is. The usual exit would run the libraries' destructors
    // while workers still use what they destroy.
    unsafe { libc::_exit(code) }
}

/// Has all worker threads share two heaps: glibc's own for each thread would hold memory that an
/// idle container has no use for.
fn share_heaps() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no other thread exists yet, and any number of heaps is allowed.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}

/// Has C print a line when it is whole, as to a terminal. By default what goes to a pipe waits for
/// 4 KiB to come together, and is lost when the container ends.
fn print_whole_lines() {
    unsafe extern "C" {
        static stdout: *mut libc::FILE;
    }
    // SAFETY: the C library sets it before `main`.
    let stream = unsafe { stdout };
    // SAFETY: nothing was printed to the stream yet; without a buffer the library keeps its own. A
    // refusal leaves all as it was.
    unsafe { libc::setvbuf(stream, std::ptr::null_mut(), libc::_IOLBF, 0) };
}

fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<Command, String> {
    let (mut library, mut function, mut confined) = (None, None, false);
    let mut sandbox = Sandbox::default();
    while let Some(argument) = arguments.next() {
        let shown = argument.to_string_lossy();
        let mut value = || arguments.next().ok_or(format!("{shown} needs a value"));
        match argument.to_str() {
            Some("--library") => library = Some(PathBuf::from(value()?)),
            Some("--function") => {
                let text = value()?.into_string();
                function = Some(text.map_err(|_| "a function's name is UTF-8".to_owned())?);
            }
            Some("--sandbox") => confined = true,
            Some("--namespaces") => sandbox.set_namespaces(&value()?)?,
            Some("--user") => {
                let number = value()?;
                let number = number.to_str().and_then(|number| number.parse().ok());
                sandbox.user = Some(number.ok_or("a user is a number")?);
            }
            Some("--read-only") => sandbox.read_only.push(PathBuf::from(value()?)),
            Some("--network") => sandbox.network = true,
            Some("--help") => return Ok(Command::Say(USAGE.to_owned())),
            Some("--version") => {
                return Ok(Command::Say(format!("nightcore-worker {}", env!("CARGO_PKG_VERSION"))));
            }
            _ => return Err(format!("unknown argument {shown}")),
        }
    }
    match (library, function) {
        (Some(library), Some(function)) => {
            Ok(Command::Serve { library, function, sandbox: confined.then_some(sandbox) })
        }
        (None, _) => Err("--library is missing".to_owned()),
        (_, None) => Err("--function is missing".to_owned()),
    }
}
