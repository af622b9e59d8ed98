//! `[[function]]`: one function and its container.

use std::path::PathBuf;
use std::time::Duration;

use engine::container::ContainerKind;
use protocol::message::Repeat;

use super::error::{ConfigError, Problem};
use super::library::Search;
use super::table::Value;
use super::{DURATION_MAX, DURATION_MIN};

/// A worker has a lane of its own.
pub const WORKERS_MAX: u16 = ipc::layout::LANES_MAX;
/// A container costs a process and a few fds, of which an engine may hold 20,000.
pub const FUNCTIONS_MAX: usize = 1024;
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
/// A function's name travels in a path and in a 64-byte field.
const NAME_SIZE_MAX: usize = 64;
/// What a function's name looks like, for messages.
pub const FUNCTION_NAME: &str = "a name of 1 to 64 letters, digits, \"_\", \".\" or \"-\"";
/// Prefix of the variables by which the engine speaks to a container.
const ENV_RESERVED: &str = "NIGHTCORE_";

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
    /// Whether a call that may have begun may be begun again, on another host.
    pub repeat: Repeat,
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
pub(super) const CONTAINER_KINDS: &[(&str, ContainerKind)] = &[
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

/// Whether `text` can name a function: [`FUNCTION_NAME`].
pub fn is_function_name(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let is_name = (1..=NAME_SIZE_MAX).contains(&text.len()) && text.bytes().all(is_plain);
    // Clients resolve these two away before they send the path.
    is_name && text != "." && text != ".."
}

pub(super) fn read_functions(
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
        "idempotent",
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
        repeat: Repeat::Never,
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
    table.read("idempotent", &mut function.repeat, |value| {
        Ok(if value.flag()? { Repeat::Idempotent } else { Repeat::Never })
    })?;
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
