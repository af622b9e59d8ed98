//! A container that lies. The engine under test starts it in place of `nightcore-worker`:
//!
//! - for a function `hostile-<lie>` it speaks the protocol honestly, echoes its inputs, and tells
//!   the lie when a call's input says so, or during the handshake;
//! - each start appends a byte to the file that `HOSTILE_STARTS` names. The container that lies is
//!   the first one, or the second for a lie of the handshake, since an engine is not up before
//!   every container has once said hello; whatever comes after it is the real `nightcore-worker`;
//! - for every other function it is the real one at once.
//!
//! The lies are listed in `README.md`, with what becomes of each.

mod container;
mod forger;
mod lies;

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::{env, fs, io};

/// Functions of such a name lie.
const PREFIX: &str = "hostile-";
/// The file in which starts are counted.
const STARTS_VARIABLE: &str = "HOSTILE_STARTS";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let function = arguments.iter().skip_while(|argument| *argument != "--function").nth(1);
    let Some(lie) = function.and_then(|name| name.strip_prefix(PREFIX)) else {
        return be_honest(&arguments);
    };
    let start = match count_start() {
        Ok(start) => start,
        Err(error) => return complain(&format!("the starts cannot be counted: {error}")),
    };
    let socket = env::var_os("NIGHTCORE_SOCKET").map(PathBuf::from).unwrap_or_default();
    let ended = match (start, lies::is_of_handshake(lie)) {
        (1, _) => container::serve(&socket, lie),
        (2, true) => lies::greet(&socket, lie),
        _ => return be_honest(&arguments),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&error.to_string()),
    }
}

/// Becomes the real worker, which lies beside this one.
fn be_honest(arguments: &[String]) -> ExitCode {
    let Ok(this) = env::current_exe() else { return complain("it does not know where it is") };
    let error = Command::new(this.with_file_name("nightcore-worker")).args(arguments).exec();
    complain(&format!("the real worker cannot be run: {error}"))
}

/// Which start of this function's container this is, from 1 on.
fn count_start() -> io::Result<u64> {
    let path = env::var_os(STARTS_VARIABLE).ok_or(io::ErrorKind::NotFound)?;
    OpenOptions::new().create(true).append(true).open(&path)?.write_all(b".")?;
    Ok(fs::metadata(&path)?.len())
}

fn complain(text: &str) -> ExitCode {
    eprintln!("hostile-worker: {text}");
    ExitCode::FAILURE
}
