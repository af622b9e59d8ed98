//! `nightcore up`: gateway, engine and containers on one host; `nightcore gateway` and `nightcore
//! engine`: the parts of it.
//!
//! The main thread becomes the supervisor of the containers; every shard runs on a thread of its own
//! (`shard`). Nothing is served before everything stands, and a failed start leaves nothing behind.

mod acceptor;
mod admin;
mod balance;
mod cores;
mod deploy;
mod doorman;
mod doors;
mod entrance;
mod gateways;
mod handover;
mod hosts;
mod http2;
mod listener;
mod listeners;
mod mail;
mod passage;
mod plan;
mod policy;
mod priority;
mod rebalance;
mod shard;
mod standing;
mod summary;
mod takeover;
mod tls;
mod upstream;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread::JoinHandle;

use engine::container::{HostSpec, SocketDirectory, StartError, Stopped, Supervisor};
use engine::io::exchanges;
use engine::logs::Capture;
use engine::mailbox::{Mailbox, Post, ToShard, ToSupervisor, mailbox};
use engine::stats::Stats;
use gateway::auth::AuthError;
use nix::sched::CpuSet;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use reactor::{Address, SetupError};
use thiserror::Error;

use self::admin::Admin;
use self::deploy::Deployer;
use self::doors::{Doors, Within};
use self::entrance::Entrance;
use self::gateways::{DialError, Wire};
use self::handover::{HandOver, UnderWay};
use self::hosts::Hosts;
use self::mail::ShardMail;
use self::plan::Plan;
use self::rebalance::Balance;
use self::shard::Blueprint;
use self::standing::SharedStanding;
use self::takeover::TakeoverError;
use self::tls::{CertificateError, Identities};
use crate::admin::Standing;
use crate::config::Config;

/// Functions and versions of functions for which there is room beside those of the start.
const PLACES_SPARE: usize = 128;

/// Room for open files from the start, most of them connections; more are possible.
const DESCRIPTORS: u64 = 1 << 16;

/// Names the container's host binary where it does not lie beside this executable.
const WORKER_VARIABLE: &str = "NIGHTCORE_WORKER";

/// Why the stack did not start.
#[derive(Debug, Error)]
enum UpError {
    #[error("cannot listen on {address}: {error}")]
    Listen { address: SocketAddr, error: io::Error },
    #[error("cannot listen at {}: {error}", path.display())]
    ListenAt { path: PathBuf, error: io::Error },
    #[error("{section}: {error}")]
    Certificates { section: &'static str, error: CertificateError },
    #[error("no directory for control sockets in {parent}: {error}")]
    Sockets { parent: PathBuf, error: io::Error },
    #[error("{0}")]
    Takeover(#[from] TakeoverError),
    #[error("{0}")]
    Setup(#[from] reactor::SetupError),
    #[error("{0}")]
    Auth(#[from] AuthError),
    #[error("{file}:{line}: {error}")]
    Start { file: String, line: usize, error: StartError },
    #[error("{0}")]
    Interrupted(StartError),
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("{what}: {error}")]
    System { what: &'static str, error: io::Error },
}

impl UpError {
    /// 2 where the configuration is to blame, 1 where the system is.
    fn exit_code(&self) -> u8 {
        if matches!(self, Self::Start { .. } | Self::Auth(_)) { 2 } else { 1 }
    }

    /// Blames the lines of the function that did not start.
    fn start(config: &Config, error: StartError) -> Self {
        let StartError::Container { function: name, .. } = &error else {
            return Self::Interrupted(error);
        };
        let function = config.functions.iter().find(|function| function.name == *name);
        let line = function.map_or(1, |function| function.line);
        Self::Start { file: config.file.clone(), line, error }
    }
}

/// Something that only the system can refuse.
fn system<T>(what: &'static str, result: Result<T, impl Into<io::Error>>) -> Result<T, UpError> {
    result.map_err(|error| UpError::System { what, error: error.into() })
}

/// Called on each shard's thread before it does anything: lets an embedding test look at the threads.
pub type ThreadHook = fn(shard: u16);

/// What a start finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Nobody.
    Afresh,
    /// Perhaps a gateway that is to be relieved of its listening sockets.
    Takeover,
}

/// Runs the stack until a signal, or a successor, ends it.
#[must_use]
pub fn run(config: &Config, start: Start) -> ExitCode {
    exit(serve(config, start, |_| {}))
}

/// The same, with a hook on every shard's thread.
#[must_use]
pub fn run_with_hook(config: &Config, hook: ThreadHook) -> ExitCode {
    exit(serve(config, Start::Afresh, hook))
}

fn exit(served: Result<Stopped, UpError>) -> ExitCode {
    match served {
        Ok(Stopped::Drained) => ExitCode::SUCCESS,
        Ok(Stopped::Cut) => {
            eprintln!("nightcore: stopped before every request was answered");
            ExitCode::FAILURE
        }
        Ok(Stopped::Failed(reason)) => {
            eprintln!("nightcore: {reason}");
            ExitCode::FAILURE
        }
        Err(error) => {
            match error {
                // Bare, as all that is wrong with a configuration: file and line come first.
                UpError::Start { .. } | UpError::Auth(_) => eprintln!("{error}"),
                _ => eprintln!("nightcore: {error}"),
            }
            ExitCode::from(error.exit_code())
        }
    }
}

/// The threads of the shards and what the main thread needs to speak to them.
struct Shards {
    posts: Vec<Post<ToShard>>,
    mail: Vec<Post<ShardMail>>,
    threads: Vec<JoinHandle<()>>,
    mailbox: Mailbox<ToSupervisor>,
    supervisor: Post<ToSupervisor>,
    balance: Arc<Balance>,
    hosts: Hosts,
    wire: Wire,
    stats: Arc<Stats>,
    plan: Plan,
    raised: bool,
}

fn serve(config: &Config, start: Start, hook: ThreadHook) -> Result<Stopped, UpError> {
    // Before any thread is made: room, and the mask of signals that all of them inherit.
    ipc::descriptor_table::reserve(DESCRIPTORS);
    let signals = read_signals(&[Signal::SIGTERM, Signal::SIGINT], SfdFlags::SFD_NONBLOCK)?;
    let hangups = read_signals(&[Signal::SIGHUP], SfdFlags::empty())?;

    let entrance = Entrance::open(config)?;
    let identities = Identities::load(config)
        .map_err(|(section, error)| UpError::Certificates { section, error })?;
    let parent = config.engine.runtime_dir.clone().unwrap_or_else(std::env::temp_dir);
    let (takeover, listeners) = doors::relieve(start, &parent)?;
    let doors = Doors::bind(config, &entrance, &identities, listeners)?;
    let addresses = doors.addresses();
    let sockets =
        SocketDirectory::create(&parent).map_err(|error| UpError::Sockets { parent, error })?;
    let directory = sockets.path().to_owned();
    let annexes = doors.annexes();
    let shards = start_shards(config, &entrance, &annexes, hook)?;
    let mut plan = shards.plan;
    plan.niceness(config, shards.raised);
    let logs = shards.stats.logs.clone();
    let (mail, stats, posts) = (shards.mailbox, shards.stats, shards.posts.clone());
    let mut supervisor = make_supervisor(config, sockets, &plan, posts, mail, signals, stats)?;
    let to_supervisor = shards.supervisor.clone();
    let deployer = Deployer::new(config, plan, entrance.clone(), identities, to_supervisor);
    let deployer = Arc::new(deployer);
    let standing = Arc::<SharedStanding>::default();
    let handover = HandOver {
        supervisor: shards.supervisor.clone(),
        listeners: doors.listeners(),
        shards: shards.mail.clone(),
        engines: Some((annexes.1, Arc::clone(&shards.hosts.board))),
        standing: Arc::clone(&standing),
        under_way: UnderWay::default(),
    };
    let asked = admin::Engine {
        address: addresses.public,
        role: config.overrides.role,
        logs,
        deployer: Arc::clone(&deployer),
        handover,
    };
    let within =
        Within { mail: &shards.mail, balance: &shards.balance, board: &shards.hosts.board };
    let started = supervisor
        .start_all()
        .map_err(|error| UpError::start(config, error))
        .and_then(|()| system("no admin socket", Admin::start(&directory, asked)))
        .and_then(|admin| Ok((admin, gateways::start(config, &shards.mail, &shards.wire)?)))
        .and_then(|(admin, dialer)| Ok((admin, dialer, doors.open(takeover, within)?)));
    let (admin, dialer, open) = match started {
        Ok(started) => started,
        Err(error) => {
            supervisor.shut_down();
            join(shards.threads);
            return Err(error);
        }
    };
    standing.set(Standing::Serving);
    summary::Summary { config, addresses }.print(shards.posts.len(), shards.raised, &supervisor);
    deploy::reload_on_hangup(hangups, deployer);
    let stopped = supervisor.run(config.engine.drain_timeout, || standing.set(Standing::Draining));
    open.stop();
    drop(dialer);
    supervisor.shut_down();
    join(shards.threads);
    entrance.close();
    drop(admin);
    Ok(stopped)
}

/// What looks after containers; none is started yet.
fn make_supervisor(
    config: &Config,
    sockets: SocketDirectory,
    plan: &Plan,
    posts: Vec<Post<ToShard>>,
    mail: Mailbox<ToSupervisor>,
    signals: SignalFd,
    stats: Arc<Stats>,
) -> Result<Supervisor, UpError> {
    let worker = match config.overrides.role.has_functions() {
        true => system("the container's host binary is not there", worker_binary())?,
        false => PathBuf::new(),
    };
    let host = HostSpec {
        worker,
        require: config.engine.require,
        oci_runtime: config.engine.oci_runtime.clone(),
        oci_rootfs: config.engine.oci_rootfs.clone(),
    };
    let specs = config.functions.iter().map(|function| plan.container(function, 1)).collect();
    let capture = Capture::start(stats.logs.clone());
    let capture = system("functions' output cannot be read", capture)?;
    let supervisor = Supervisor::new(&host, sockets, specs, posts, mail, signals, stats, capture);
    system("containers cannot be supervised", supervisor)
}

/// Has these signals come by a descriptor.
fn read_signals(signals: &[Signal], flags: SfdFlags) -> Result<SignalFd, UpError> {
    let set: SigSet = signals.iter().copied().collect();
    system("signals cannot be blocked", set.thread_block())?;
    let flags = flags | SfdFlags::SFD_CLOEXEC;
    system("signals cannot be read", SignalFd::with_flags(&set, flags))
}

fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        // A shard that panicked has reported itself to the supervisor.
        let _ = thread.join();
    }
}

/// The container's host binary lies beside this one, unless the environment names another.
fn worker_binary() -> io::Result<PathBuf> {
    let path = match std::env::var_os(WORKER_VARIABLE) {
        Some(path) => PathBuf::from(path),
        None => std::env::current_exe()?.with_file_name("nightcore-worker"),
    };
    let missing =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    std::fs::metadata(&path).map_err(missing)?;
    Ok(path)
}

fn start_shards(
    config: &Config,
    entrance: &Entrance,
    (http2, doorman): &(http2::Annex, doorman::Annex),
    hook: ThreadHook,
) -> Result<Shards, UpError> {
    let cores = system("the cores of this machine are unknown", usable_cores())?;
    let wanted = config.engine.shards.map_or(cores.len(), usize::from);
    let count = u16::try_from(wanted).unwrap_or(u16::MAX);
    let (to_supervisor, supervisor_mail) = system("no mailbox", mailbox())?;
    let (posts, boxes) = mailboxes(count)?;
    let (mail_posts, mails) = mailboxes(count)?;
    let wire = Wire::default();
    let hosts = Hosts::new(count, wire.clone());
    let plan = Plan::new(config, count, u16::try_from(cores.len()).unwrap_or(u16::MAX));
    let core = |index: u16| cores[usize::from(index) % cores.len()];
    let shard_cores: Vec<u16> = (0..count).map(core).collect();
    let balance = Arc::new(Balance::new(&shard_cores, config.gateway.connections_max));
    let stats = Arc::new(Stats::new(config.functions.len() + PLACES_SPARE, count));
    let deployments: Result<Vec<_>, _> =
        config.functions.iter().map(|function| plan.functions(function, 1)).collect();
    let deployments = deployments.map_err(|error| UpError::start(config, error))?;
    let (ready, readiness) = mpsc::channel();
    let mut threads = Vec::new();
    let (exchanges, rings) = exchanges(count);
    let boxes = boxes.into_iter().zip(mails);
    for ((index, (mailbox, mail)), exchange) in (0..count).zip(boxes).zip(exchanges) {
        let others = posts.iter().enumerate().filter(|(other, _)| *other != usize::from(index));
        let blueprint = Blueprint {
            index,
            core: core(index),
            functions: deployments.iter().map(|f| f[usize::from(index)].clone()).collect(),
            siblings: others.map(|(_, post)| post.clone()).collect(),
            supervisor: to_supervisor.clone(),
            mailbox,
            mail,
            exchange,
            balance: Arc::clone(&balance),
            entrance: entrance.clone(),
            stats: Arc::clone(&stats),
            http2: http2.clone(),
            hosts: hosts.clone(),
            doorman: doorman.clone(),
            hook,
        };
        let (config, ready) = (config.clone(), ready.clone());
        let thread = std::thread::Builder::new()
            .name(format!("shard-{index}"))
            .spawn(move || shard::run(blueprint, &config, &ready));
        threads.push(system("a shard's thread cannot be started", thread)?);
    }
    drop(ready);
    let (peers, raised) = await_shards(threads.len(), &readiness)?;
    balance.passage.open(&peers);
    rings.open(&peers);
    let (mailbox, supervisor, mail) = (supervisor_mail, to_supervisor, mail_posts);
    Ok(Shards {
        posts,
        mail,
        threads,
        mailbox,
        supervisor,
        balance,
        hosts,
        wire,
        stats,
        plan,
        raised,
    })
}

/// Waits until all rings stand: where they are, by shard, and whether all threads have their priority.
fn await_shards(
    count: usize,
    readiness: &Receiver<Result<shard::Ready, SetupError>>,
) -> Result<(Vec<Address>, bool), UpError> {
    let mut addresses = vec![None; count];
    let mut raised = true;
    for _ in 0..count {
        let news = readiness.recv().map_err(io::Error::other);
        let news = system("a shard ended before it was ready", news)??;
        addresses[usize::from(news.index)] = Some(news.address);
        raised &= news.raised;
    }
    Ok((addresses.into_iter().flatten().collect(), raised))
}

/// A mailbox for each shard.
type Mailboxes<T> = (Vec<Post<T>>, Vec<Mailbox<T>>);

fn mailboxes<T>(count: u16) -> Result<Mailboxes<T>, UpError> {
    let boxes = (0..count).map(|_| mailbox()).collect::<io::Result<Vec<_>>>();
    Ok(system("no mailbox", boxes)?.into_iter().unzip())
}

fn usable_cores() -> io::Result<Vec<u16>> {
    let set = nix::sched::sched_getaffinity(Pid::from_raw(0))?;
    let usable = (0..CpuSet::count()).filter(|core| set.is_set(*core).unwrap_or(false));
    let cores: Vec<u16> = usable.filter_map(|core| u16::try_from(core).ok()).collect();
    if cores.is_empty() { Err(io::Error::other("the affinity mask is empty")) } else { Ok(cores) }
}
