//! `nightcore.toml`: read once at start, checked in full, handed on as plain values.
//!
//! A `Config` is resolved: defaults are filled in, library paths are absolute and name files that
//! exist, every number lies in its range. Whoever holds one has nothing left to check. A file that
//! cannot become one gives a [`ConfigError`] of a single line (file, line, key, what was expected),
//! and nothing has been started by then.

mod error;
mod library;
mod table;
mod units;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use engine::container::ContainerKind;
use toml::de::DeTable;

pub use error::{ConfigError, Place, Problem};
use library::Search;
use table::{Source, Table, Value};
pub(crate) use units::parse_duration;

/// Where the gateway listens when nothing else is said.
pub const LISTEN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

/// A worker has a lane of its own.
pub const WORKERS_MAX: u16 = ipc::layout::LANES_MAX;
/// One thread per core; machines with more cores run several engines.
pub const SHARDS_MAX: u16 = 256;
/// A container costs a process and a few fds, of which an engine may hold 20,000.
pub const FUNCTIONS_MAX: usize = 1024;
/// A lane maps four payloads of this size in each direction: 2 GiB of address space.
const BODY_MAX: u64 = 256 << 20;
/// The fds of a process again: connections share them with doorbells and sockets.
const CONNECTIONS_MAX: u16 = 16_384;
/// Each level of a call chain holds a worker, so the depth is bounded by lanes as well.
const DEPTH_MAX: u16 = WORKERS_MAX;
/// As many calls as a shard can remember.
const QUEUE_MAX: u32 = 65_536;
/// More than a host can do, of calls at once and of calls a second.
const LIMIT_MAX: u32 = 10_000_000;
/// After more deaths than this a crash loop is nothing new.
const DEATHS_MAX: u32 = 1000;
/// Lines a second: what the reader of the functions' output can do.
const LOG_RATE_MAX: u32 = 100_000;
/// Processes and threads that a container may have beside its workers where nothing else is said: the
/// launcher, and what the function starts itself.
pub const PIDS_DEFAULT: u32 = 128;
/// The kernel's own limit.
const PIDS_MAX: u32 = 1 << 22;
/// A quota above what any host has is a slip of the pen.
const CORES_MAX: f64 = 1024.0;

const _: () = assert!(BODY_MAX <= ipc::layout::PAYLOAD_LIMIT as u64);

/// Longer limits are taken for a slip of the pen.
const DURATION_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// The finest step of the timers.
const DURATION_MIN: Duration = Duration::from_millis(1);
/// A function's name travels in a path and in a 64-byte field.
const NAME_SIZE_MAX: usize = 64;
/// What a function's name looks like, for messages.
pub const FUNCTION_NAME: &str = "a name of 1 to 64 letters, digits, \"_\", \".\" or \"-\"";
/// Prefix of the variables by which the engine speaks to a container.
const ENV_RESERVED: &str = "NIGHTCORE_";

/// A complete, checked configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The file's path as given, for messages.
    pub file: String,
    /// What the command line said over it.
    pub overrides: Overrides,
    /// The HTTP front end.
    pub gateway: Gateway,
    /// The dispatcher.
    pub engine: Engine,
    /// What is served, in the order of the file; names are unique.
    pub functions: Vec<Function>,
}

/// `[gateway]`: the HTTP front end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Largest request body, and largest payload of any call, in bytes.
    pub body_max: u32,
    /// Most connections of one shard at once.
    pub connections_max: u32,
    /// A request's head must be complete within this time of its first byte.
    pub head_timeout: Duration,
    /// A body may pause for this long.
    pub body_timeout: Duration,
    /// A connection without a request is closed after this.
    pub idle_timeout: Duration,
    /// A client that takes no bytes of its answer for this long is dropped.
    pub write_timeout: Duration,
}

/// `[engine]`: the dispatcher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engine {
    /// Number of shards; `None`: one per core.
    pub shards: Option<u16>,
    /// Directory of the control sockets; `None`: chosen at start.
    pub runtime_dir: Option<PathBuf>,
    /// How long a stop waits for calls under way.
    pub drain_timeout: Duration,
    /// Longest chain of calls that call each other.
    pub depth_max: u16,
    /// How the engine's threads stand to the functions on their core.
    pub priority: Priority,
    /// How containers are run where the function does not say.
    pub container: ContainerKind,
    /// Refuse to start a container of which some part of the isolation or a limit is not enforced.
    pub require: bool,
    /// The OCI runtime: a name on `PATH`, or an absolute path.
    pub oci_runtime: String,
    /// Directory with the root file system of `oci` containers; `None`: the host's own system
    /// directories, read-only.
    pub oci_rootfs: Option<PathBuf>,
}

/// How the engine's threads stand to the functions on their core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// Before them, by whatever means this system permits; as equals while many calls are in flight,
    /// unless a function computes on the same core.
    Adaptive,
    /// Before them, always.
    High,
    /// Before them, by CPU groups of minimum weight for the functions.
    Groups,
    /// As equals.
    Normal,
}

/// `[[function]]`: one function and its container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Name in paths and in internal calls.
    pub name: String,
    /// Absolute path of the shared library; it was there at start.
    pub library: PathBuf,
    /// Workers kept even when idle, started with the container.
    pub min_workers: u16,
    /// Most workers, those of all shards together.
    pub max_workers: u16,
    /// Time limit of a call.
    pub timeout: Duration,
    /// How its container is run.
    pub container: ContainerKind,
    /// Limit of the container's memory in bytes; `None`: unlimited.
    pub memory: Option<u64>,
    /// Most processes and threads in the container; `None`: [`PIDS_DEFAULT`] beside its workers.
    pub pids: Option<u32>,
    /// CPU time the container may use, in thousandths of a core; `None`: no quota.
    pub cpu_quota: Option<u32>,
    /// Whether the container sees the host's network.
    pub network: bool,
    /// Files and directories of the host that the container may read, beside what every one may.
    pub read_only: Vec<PathBuf>,
    /// Where its workers run.
    pub placement: Placement,
    /// Environment of the container.
    pub env: Vec<(String, String)>,
    /// Most calls that wait for a worker.
    pub queue_max: u32,
    /// A call that would wait longer than this for a worker is refused; `None`: only one that would
    /// miss its deadline.
    pub queue_wait_max: Option<Duration>,
    /// What bounds the calls on workers and sizes the pool.
    pub concurrency: Concurrency,
    /// Most calls at once, waiting ones included, of all shards together.
    pub concurrency_limit: Option<u32>,
    /// Most calls a second, of all shards together.
    pub rate_limit: Option<u32>,
    /// How long a call may run on behind `timeout` until the container is replaced.
    pub grace: Duration,
    /// Lines a second of its output that are kept, and as many at once.
    pub log_rate: u32,
    /// A container without calls for so long is stopped, until the next call.
    pub idle_timeout: Option<Duration>,
    /// Deaths in a row that make a crash loop.
    pub breaker_deaths: u32,
    /// Time that its containers may have run between the first of them and the last.
    pub breaker_window: Duration,
    /// Line of its `[[function]]` in the file, for messages.
    pub line: usize,
}

/// Where a function's workers run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// On the core of the shard that calls them: right for short functions.
    Core,
    /// Wherever the kernel likes: right for functions that compute for milliseconds.
    Free,
}

/// How containers are named in the file.
const CONTAINER_KINDS: &[(&str, ContainerKind)] = &[
    ("sandbox", ContainerKind::Sandbox),
    ("process", ContainerKind::Process),
    ("oci", ContainerKind::Oci),
];

/// What bounds the calls on a function's workers and sizes its pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concurrency {
    /// The measured load.
    Managed,
    /// The pool: it grows one by one while calls wait.
    Fixed,
    /// `max_workers` alone: a worker for each call.
    Unlimited,
}

/// What the command line says over the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--listen`.
    pub listen: Option<SocketAddr>,
    /// `--shards`, in `1..=SHARDS_MAX`.
    pub shards: Option<u16>,
}

impl Config {
    /// Reads and checks the file; relative libraries are looked for beside it and beside the
    /// running executable.
    pub fn load(path: &Path, overrides: Overrides) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
            file: path.display().to_string(),
            source,
        })?;
        Config::read(&text, path, overrides)
    }

    /// The same of a text, which is taken for that of the file.
    pub fn read(text: &str, path: &Path, overrides: Overrides) -> Result<Config, ConfigError> {
        Config::parse(text, path, overrides, &Search::from(path))
    }

    fn parse(
        text: &str,
        path: &Path,
        overrides: Overrides,
        search: &Search,
    ) -> Result<Config, ConfigError> {
        let source = Source::new(path, text);
        let document = DeTable::parse(text).map_err(|error| source.syntax(&error))?;
        let known = &["gateway", "engine", "function"];
        let root = Table::open(&source, "", document.get_ref(), 0, known)?;

        let gateway = read_gateway(root.get("gateway").as_ref(), overrides.listen)?;
        let mut engine = read_engine(root.get("engine").as_ref())?;
        let functions = read_functions(root.get("function").as_ref(), search, engine.container)?;
        engine.shards = overrides.shards.or(engine.shards);
        let file = path.display().to_string();
        Ok(Config { file, overrides, gateway, engine, functions })
    }
}

/// Whether `text` can name a function: [`FUNCTION_NAME`].
pub fn is_function_name(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let is_name = (1..=NAME_SIZE_MAX).contains(&text.len()) && text.bytes().all(is_plain);
    // Clients resolve these two away before they send the path.
    is_name && text != "." && text != ".."
}

fn read_gateway(
    section: Option<&Value<'_>>,
    listen_option: Option<SocketAddr>,
) -> Result<Gateway, ConfigError> {
    let mut gateway = Gateway {
        listen: LISTEN_DEFAULT,
        body_max: 16 << 20,
        connections_max: 8192,
        head_timeout: Duration::from_secs(10),
        body_timeout: Duration::from_secs(30),
        idle_timeout: Duration::from_secs(75),
        write_timeout: Duration::from_secs(30),
    };
    let mut insecure = false;
    let mut place = None;
    if let Some(section) = section {
        let table = section.table(&[
            "listen",
            "insecure",
            "body_max",
            "connections_max",
            "head_timeout",
            "body_timeout",
            "idle_timeout",
            "write_timeout",
        ])?;
        if let Some(value) = table.get("listen") {
            gateway.listen = value.parsed("an address and port such as \"127.0.0.1:8080\"")?;
            place = Some(value.place());
        }
        table.read("insecure", &mut insecure, |value| value.flag())?;
        table.read("body_max", &mut gateway.body_max, |value| {
            // The range keeps it within 32 bits.
            value.size(1..=BODY_MAX).map(|size| u32::try_from(size).unwrap_or(u32::MAX))
        })?;
        table.read("connections_max", &mut gateway.connections_max, |value| {
            value.integer(1..=CONNECTIONS_MAX).map(u32::from)
        })?;
        for (key, field) in [
            ("head_timeout", &mut gateway.head_timeout),
            ("body_timeout", &mut gateway.body_timeout),
            ("idle_timeout", &mut gateway.idle_timeout),
            ("write_timeout", &mut gateway.write_timeout),
        ] {
            table.read(key, field, |value| value.duration(DURATION_MIN..=DURATION_MAX))?;
        }
    }
    if let Some(listen) = listen_option {
        gateway.listen = listen;
        place = Some(Place::Option("--listen"));
    }
    match place {
        // Calls are not authenticated, so whoever reaches the port may run every function.
        Some(place) if !insecure && !gateway.listen.ip().to_canonical().is_loopback() => {
            Err(ConfigError::Refused { place, problem: Problem::Exposed(gateway.listen) })
        }
        _ => Ok(gateway),
    }
}

fn read_engine(section: Option<&Value<'_>>) -> Result<Engine, ConfigError> {
    let mut engine = Engine {
        shards: None,
        runtime_dir: None,
        drain_timeout: Duration::from_secs(30),
        depth_max: 16,
        priority: Priority::Adaptive,
        container: ContainerKind::Sandbox,
        require: false,
        oci_runtime: "runc".to_owned(),
        oci_rootfs: None,
    };
    let Some(section) = section else { return Ok(engine) };
    let table = section.table(&[
        "shards",
        "runtime_dir",
        "drain_timeout",
        "depth_max",
        "priority",
        "container",
        "require",
        "oci_runtime",
        "oci_rootfs",
    ])?;
    table.read("container", &mut engine.container, |value| value.one_of(CONTAINER_KINDS))?;
    table.read("require", &mut engine.require, |value| value.flag())?;
    table.read("oci_runtime", &mut engine.oci_runtime, |value| {
        value.text("the name or path of an OCI runtime").map(str::to_owned)
    })?;
    table.read("oci_rootfs", &mut engine.oci_rootfs, |value| value.absolute_path().map(Some))?;
    table.read("shards", &mut engine.shards, |value| value.integer(1..=SHARDS_MAX).map(Some))?;
    table.read("runtime_dir", &mut engine.runtime_dir, |value| value.absolute_path().map(Some))?;
    table.read("drain_timeout", &mut engine.drain_timeout, |value| {
        value.duration(Duration::ZERO..=DURATION_MAX)
    })?;
    table.read("depth_max", &mut engine.depth_max, |value| value.integer(1..=DEPTH_MAX))?;
    table.read("priority", &mut engine.priority, |value| {
        value.one_of(&[
            ("adaptive", Priority::Adaptive),
            ("high", Priority::High),
            ("groups", Priority::Groups),
            ("normal", Priority::Normal),
        ])
    })?;
    Ok(engine)
}

fn read_functions(
    section: Option<&Value<'_>>,
    search: &Search,
    container: ContainerKind,
) -> Result<Vec<Function>, ConfigError> {
    let Some(section) = section else { return Ok(Vec::new()) };
    let entries = section.tables(FUNCTIONS_MAX)?;
    let mut functions: Vec<Function> = Vec::with_capacity(entries.len());
    for entry in &entries {
        let (function, name) = read_function(entry, search, container)?;
        if let Some(first) = functions.iter().find(|other| other.name == function.name) {
            return Err(
                name.refused(Problem::Duplicate { name: function.name, first_line: first.line })
            );
        }
        functions.push(function);
    }
    Ok(functions)
}

/// Gives the function and the value of its name, for the check that needs all names.
fn read_function<'a>(
    entry: &Value<'a>,
    search: &Search,
    container: ContainerKind,
) -> Result<(Function, Value<'a>), ConfigError> {
    let table = entry.table(&[
        "name",
        "library",
        "min_workers",
        "max_workers",
        "timeout",
        "container",
        "memory",
        "pids",
        "cpu_quota",
        "network",
        "read_only",
        "placement",
        "env",
        "queue_max",
        "queue_wait_max",
        "concurrency",
        "concurrency_limit",
        "rate_limit",
        "grace",
        "idle_timeout",
        "breaker_deaths",
        "breaker_window",
        "log_rate",
    ])?;
    let name = table.require("name", "the function's name")?;
    let library = table.require("library", "the path of a shared library")?;
    let mut function = Function {
        name: read_name(&name)?,
        library: search.find(&library)?,
        min_workers: 1,
        max_workers: 128,
        timeout: Duration::from_secs(30),
        container,
        memory: None,
        pids: None,
        cpu_quota: None,
        network: false,
        read_only: Vec::new(),
        placement: Placement::Core,
        env: Vec::new(),
        queue_max: 1024,
        queue_wait_max: None,
        concurrency: Concurrency::Managed,
        concurrency_limit: None,
        rate_limit: None,
        grace: Duration::from_secs(5),
        idle_timeout: None,
        breaker_deaths: 5,
        breaker_window: Duration::from_secs(1),
        log_rate: 1000,
        line: table.line(),
    };
    table.read("max_workers", &mut function.max_workers, |value| value.integer(1..=WORKERS_MAX))?;
    let workers_max = function.max_workers;
    table.read("min_workers", &mut function.min_workers, |value| {
        match value.integer(0..=WORKERS_MAX)? {
            min if min > workers_max => Err(value.refused(Problem::AboveMax { min, workers_max })),
            min => Ok(min),
        }
    })?;
    table.read("timeout", &mut function.timeout, |value| {
        value.duration(DURATION_MIN..=DURATION_MAX)
    })?;
    // Less than a mebibyte does not even load the runtime library.
    table.read("memory", &mut function.memory, |value| value.size(1 << 20..=1 << 50).map(Some))?;
    table.read("container", &mut function.container, |value| value.one_of(CONTAINER_KINDS))?;
    table.read("pids", &mut function.pids, |value| value.integer(1..=PIDS_MAX).map(Some))?;
    table.read("cpu_quota", &mut function.cpu_quota, |value| value.cores(CORES_MAX).map(Some))?;
    table.read("network", &mut function.network, |value| value.flag())?;
    table.read("read_only", &mut function.read_only, |value| value.absolute_paths())?;
    table.read("placement", &mut function.placement, |value| {
        value.one_of(&[("core", Placement::Core), ("free", Placement::Free)])
    })?;
    table.read("env", &mut function.env, read_env)?;
    table.read("queue_max", &mut function.queue_max, |value| value.integer(0..=QUEUE_MAX))?;
    for (key, field) in [
        ("queue_wait_max", &mut function.queue_wait_max),
        ("idle_timeout", &mut function.idle_timeout),
    ] {
        table.read(key, field, |value| value.duration(DURATION_MIN..=DURATION_MAX).map(Some))?;
    }
    for (key, field) in [
        ("concurrency_limit", &mut function.concurrency_limit),
        ("rate_limit", &mut function.rate_limit),
    ] {
        table.read(key, field, |value| value.integer(1..=LIMIT_MAX).map(Some))?;
    }
    table.read("log_rate", &mut function.log_rate, |value| value.integer(1..=LOG_RATE_MAX))?;
    for (key, field) in
        [("grace", &mut function.grace), ("breaker_window", &mut function.breaker_window)]
    {
        table.read(key, field, |value| value.duration(DURATION_MIN..=DURATION_MAX))?;
    }
    table.read("breaker_deaths", &mut function.breaker_deaths, |value| {
        value.integer(1..=DEATHS_MAX)
    })?;
    table.read("concurrency", &mut function.concurrency, |value| {
        value.one_of(&[
            ("managed", Concurrency::Managed),
            ("fixed", Concurrency::Fixed),
            ("unlimited", Concurrency::Unlimited),
        ])
    })?;
    Ok((function, name))
}

fn read_name(value: &Value<'_>) -> Result<String, ConfigError> {
    match value.text(FUNCTION_NAME)? {
        name if is_function_name(name) => Ok(name.to_owned()),
        _ => Err(value.unexpected(FUNCTION_NAME)),
    }
}

fn read_env(value: &Value<'_>) -> Result<Vec<(String, String)>, ConfigError> {
    let mut env = Vec::new();
    for (name, value) in value.entries("a table of environment variables")? {
        let is_name = !name.is_empty() && !name.contains(['=', '\0']);
        if !is_name || name.starts_with(ENV_RESERVED) {
            return Err(value.refused(Problem::EnvName));
        }
        let text = value.text("a string")?;
        if text.contains('\0') {
            return Err(value.unexpected("a string without NUL"));
        }
        env.push((name.to_owned(), text.to_owned()));
    }
    Ok(env)
}

#[cfg(test)]
mod tests;
