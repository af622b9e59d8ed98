//! The process of a container: loads the library, then does what the engine says on the control
//! socket: maps channels, spawns workers, ends.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::ptr;
use std::sync::Arc;
use std::thread;

use ipc::control::{ControlError, ControlSocket, FromLauncher, PROTOCOL_VERSION, ToLauncher};
use ipc::worker_side::{WorkerChannel, WorkerLane};
use ipc::{Geometry, LaneIndex};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use super::library::{Function, LoadError};
use super::sandbox::{Sandbox, SandboxError};
use super::worker;
use std::os::fd::OwnedFd;

/// Stack of a worker thread, in bytes. Only what is touched costs memory.
const STACK_SIZE: usize = 2 << 20;

/// The same of the thread that waits for the launcher's end; the system may have a greater minimum.
const WATCH_STACK_SIZE: usize = 16 << 10;

/// Why the container ends before the engine says so.
#[derive(Debug, thiserror::Error)]
pub enum LauncherError {
    /// The library cannot be used; the engine was told.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The sandbox cannot be had; the engine was told.
    #[error("its sandbox: {0}")]
    Sandbox(#[from] SandboxError),
    /// No engine to talk to, or not in our language.
    #[error("control socket: {0}")]
    Control(#[from] ControlError),
    /// Telling the engine something failed.
    #[error("control socket: {0}")]
    Send(#[from] io::Error),
    /// The engine speaks another version.
    #[error("the engine speaks version {got} of the protocol, this container {PROTOCOL_VERSION}")]
    Version {
        /// The engine's.
        got: u32,
    },
    /// The engine takes this container for another.
    #[error("this container runs function {ours}, the engine welcomed {theirs}")]
    Function {
        /// As the command line says.
        ours: String,
        /// As the engine says.
        theirs: String,
    },
    /// A channel that cannot be mapped.
    #[error("the channel of shard {shard}: {reason}")]
    Channel {
        /// Whose channel.
        shard: u16,
        /// What is wrong with it.
        reason: String,
    },
}

/// A channel, and the limit that comes with it.
struct Channel {
    channel: Arc<WorkerChannel>,
    payload_max: u32,
}

/// A launcher that the engine has welcomed.
struct Launcher {
    control: Arc<ControlSocket>,
    function: Arc<Function>,
    channels: HashMap<u16, Channel>,
}

/// Serves as the container of `name` until the engine says stop or goes away, inside `sandbox` from
/// before the library is loaded.
///
/// # Safety
/// As for [`Function::load`]; and nobody joins or detaches the calling thread.
pub unsafe fn run(
    library: &Path,
    name: &str,
    socket: &Path,
    sandbox: Option<&Sandbox>,
) -> Result<(), LauncherError> {
    let control = ControlSocket::connect(socket)?;
    // SAFETY: the caller's promise.
    let function = match unsafe { load(library, name, socket, sandbox) } {
        Ok(function) => function,
        Err(error) => {
            control.send_to_engine(&FromLauncher::Refused { message: error.to_string() })?;
            return Err(error);
        }
    };
    let (pid, interface) = (std::process::id(), function.interface());
    control.send_to_engine(&FromLauncher::Hello { version: PROTOCOL_VERSION, pid, interface })?;
    // SAFETY: the caller's promise.
    unsafe { end_with_this_thread() }?;
    let mut launcher = Launcher {
        control: Arc::new(control),
        function: Arc::new(function),
        channels: HashMap::new(),
    };
    loop {
        match launcher.control.receive_from_engine() {
            Ok((ToLauncher::Stop, _)) | Err(ControlError::Closed) => return Ok(()),
            Ok((message, descriptors)) => launcher.on_message(message, descriptors)?,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Confines the process and loads the library.
///
/// # Safety
/// As for [`Function::load`].
unsafe fn load(
    library: &Path,
    name: &str,
    socket: &Path,
    sandbox: Option<&Sandbox>,
) -> Result<Function, LauncherError> {
    let library = match sandbox {
        // Nothing looks at the directory of the socket once that is connected.
        Some(sandbox) => sandbox.enter(name, library, socket.parent().unwrap_or(socket))?,
        None => library.to_owned(),
    };
    // SAFETY: the caller's promise.
    Ok(unsafe { Function::load(&library, name) }?)
}

impl Launcher {
    fn on_message(
        &mut self,
        message: ToLauncher,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), LauncherError> {
        match message {
            ToLauncher::Welcome { version, function, .. } => self.welcome(version, &function),
            ToLauncher::Channel { shard, lanes, payload_max } => {
                let channel = map(lanes, payload_max, descriptors);
                let channel = channel.map_err(|reason| LauncherError::Channel { shard, reason })?;
                self.channels.insert(shard, Channel { channel: Arc::new(channel), payload_max });
                Ok(())
            }
            ToLauncher::Spawn { shard, lane, core } => {
                match self.spawn(shard, lane, core, descriptors) {
                    Ok(()) => Ok(()),
                    Err(message) => Ok(spawn_failed(&self.control, shard, lane, message)?),
                }
            }
            ToLauncher::Stop => Ok(()),
        }
    }

    fn welcome(&self, version: u32, function: &str) -> Result<(), LauncherError> {
        if version != PROTOCOL_VERSION {
            return Err(LauncherError::Version { got: version });
        }
        if function != self.function.name {
            let (ours, theirs) = (self.function.name.clone(), function.to_owned());
            return Err(LauncherError::Function { ours, theirs });
        }
        Ok(())
    }

    /// Starts a worker; what goes wrong in its thread is told from there.
    fn spawn(
        &self,
        shard: u16,
        lane: u16,
        core: Option<u16>,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), String> {
        let [doorbell] = <[OwnedFd; 1]>::try_from(descriptors)
            .map_err(|got| format!("{} descriptors where a doorbell belongs", got.len()))?;
        let known = self.channels.get(&shard);
        let Channel { channel, payload_max } =
            known.ok_or_else(|| format!("shard {shard} has no channel"))?;
        let worker_lane = WorkerLane::new(Arc::clone(channel), LaneIndex(lane), doorbell);
        let worker_lane = worker_lane.map_err(|error| error.to_string())?;
        let (control, function) = (Arc::clone(&self.control), Arc::clone(&self.function));
        let payload_max = *payload_max;
        let body = move || {
            pin(core);
            let Err(error) = worker::run(worker_lane, payload_max, &function) else { return };
            // If the engine is gone, so is this process, in a moment.
            let _ = spawn_failed(&control, shard, lane, error.to_string());
        };
        let thread = thread::Builder::new().name(format!("worker {shard}.{lane}"));
        let spawned = thread.stack_size(STACK_SIZE).spawn(body);
        spawned.map(drop).map_err(|error| format!("cannot start a thread: {error}"))
    }
}

/// Ends the process as soon as the calling thread has ended by itself. Whatever makes a function end
/// it, the engine would not see it: a process lives as long as one thread does, and its socket with it.
///
/// # Safety
/// Nobody else joins the calling thread, or detaches it.
unsafe fn end_with_this_thread() -> io::Result<()> {
    // SAFETY: has no preconditions.
    let this = unsafe { libc::pthread_self() };
    let body = move || {
        // SAFETY: `this` is a thread that nobody else joins or detaches, by the caller's promise, so
        // that it names the same thread until then; where no result is wanted, null stands for it.
        let joined = unsafe { libc::pthread_join(this, ptr::null_mut()) };
        if joined == 0 {
            eprintln!("nightcore-worker: the launcher thread ended; the container ends");
            // SAFETY: ends the process as it is, whatever other threads do.
            unsafe { libc::_exit(1) };
        }
    };
    let thread = thread::Builder::new().name("watch".to_owned());
    thread.stack_size(WATCH_STACK_SIZE).spawn(body).map(drop)
}

fn spawn_failed(control: &ControlSocket, shard: u16, lane: u16, message: String) -> io::Result<()> {
    control.send_to_engine(&FromLauncher::SpawnFailed { shard, lane, message })
}

fn map(lanes: u16, payload_max: u32, descriptors: Vec<OwnedFd>) -> Result<WorkerChannel, String> {
    let geometry = Geometry::new(lanes, payload_max).map_err(|error| error.to_string())?;
    let [a, b, bell] = <[OwnedFd; 3]>::try_from(descriptors)
        .map_err(|got| format!("{} descriptors where three belong", got.len()))?;
    WorkerChannel::map(geometry, a, b, bell).map_err(|error| error.to_string())
}

/// Keeps the calling thread on a core, if one is given. A wrong core costs time, not answers, so a
/// refusal is only told.
fn pin(core: Option<u16>) {
    let Some(core) = core else { return };
    let mut set = CpuSet::new();
    let pinned =
        set.set(usize::from(core)).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set));
    if let Err(error) = pinned {
        eprintln!("nightcore-worker: cannot pin a worker to core {core}: {error}");
    }
}
