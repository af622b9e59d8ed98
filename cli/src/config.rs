//! `nightcore.toml`: read once at start, checked in full, handed on as plain values.
//!
//! A `Config` is resolved: defaults are filled in, library paths are absolute and name files that
//! exist, every number lies in its range. Whoever holds one has nothing left to check. A file that
//! cannot become one gives a [`ConfigError`] of a single line (file, line, key, what was expected),
//! and nothing has been started by then.

mod admin;
mod auth;
mod credentials;
mod door;
mod engines;
mod error;
mod function;
mod http2;
mod library;
mod link;
mod table;
mod tls;
mod units;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use engine::container::ContainerKind;
use gateway::access_log::Destination;
use gateway::auth::AuthSource;
use serde::{Deserialize, Serialize};
use toml::de::DeTable;

use admin::read_admin_listen;
pub use auth::is_exposed;
use auth::{Lock, read_auth, refuse_exposed};
pub use credentials::{CertificateFiles, CredentialError, authorities, shared_key};
use engines::read_engines;
pub use engines::{EnginesPort, Trust};
pub use error::{ConfigError, Place, Problem};
use function::{CONTAINER_KINDS, read_functions};
pub use function::{
    Concurrency, FUNCTION_NAME, FUNCTIONS_MAX, Function, PIDS_DEFAULT, Placement, WORKERS_MAX,
    is_function_name,
};
pub use http2::Http2;
use http2::read_http2;
use library::Search;
pub use link::Link;
use link::read_link;
use table::{Source, Table, Value};
pub use tls::Tls;
use tls::read_tls;
pub(crate) use units::parse_duration;

/// Where the gateway listens when nothing else is said.
pub const LISTEN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

const LISTEN_EXPECTED: &str = "an address and port such as \"127.0.0.1:8080\"";

/// One thread per core; machines with more cores run several engines.
pub const SHARDS_MAX: u16 = 256;
/// A lane maps four payloads of this size in each direction: 2 GiB of address space.
const BODY_MAX: u64 = 256 << 20;
/// The fds of a process again: connections share them with doorbells and sockets.
const CONNECTIONS_MAX: u16 = 16_384;
/// Each keeps its body until it is answered.
const QUEUE_MAX: u16 = u16::MAX;
/// Each level of a call chain holds a worker, so the depth is bounded by lanes as well.
const DEPTH_MAX: u16 = WORKERS_MAX;

const _: () = assert!(BODY_MAX <= ipc::layout::PAYLOAD_LIMIT as u64);

/// Longer limits are taken for a slip of the pen.
const DURATION_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// The finest step of the timers.
const DURATION_MIN: Duration = Duration::from_millis(1);

/// A complete, checked configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The file's path as given, for messages.
    pub file: String,
    /// What the command line said over it.
    pub overrides: Overrides,
    /// The HTTP front end.
    pub gateway: Gateway,
    /// Who may call what; `None`: everybody everything.
    pub auth: Option<AuthSource>,
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
    /// Where the state of the host is to be seen, and nowhere else then; `None`: at `listen`.
    pub admin_listen: Option<SocketAddr>,
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
    /// Where answers are logged.
    pub access_log: Option<Destination>,
    /// Origins of web pages that may read answers; empty: nothing is said about it.
    pub cors_origins: Vec<String>,
    /// Calls of one function that may wait, on each shard, for an engine on another host.
    pub queue: usize,
    /// The door with TLS.
    pub tls: Option<Tls>,
    /// Where engines may join.
    pub engines: Option<EnginesPort>,
    /// HTTP/2 and gRPC, if they are served.
    pub http2: Option<Http2>,
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
    /// Where the state of a host without a door is to be seen; `None`: nowhere.
    pub admin_listen: Option<SocketAddr>,
    /// Gateways on other hosts; `None`: none.
    pub link: Option<Link>,
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

/// Which parts of the system a process is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Gateway, engine and containers: `nightcore up`.
    #[default]
    Host,
    /// The front end alone: `nightcore gateway`.
    Gateway,
    /// Engine and containers, for gateways elsewhere: `nightcore engine`.
    Engine,
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Role::Host => "a host",
            Role::Gateway => "a gateway",
            Role::Engine => "an engine",
        })
    }
}

impl Role {
    /// Whether clients come here.
    #[must_use]
    pub fn has_door(self) -> bool {
        self != Role::Engine
    }

    /// Whether functions run here.
    #[must_use]
    pub fn has_functions(self) -> bool {
        self != Role::Gateway
    }
}

/// What the command line says over the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// The command itself.
    pub role: Role,
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
        let known = &["gateway", "auth", "engine", "function"];
        let root = Table::open(&source, "", document.get_ref(), 0, known)?;

        let directory = path.parent().unwrap_or(Path::new(""));
        let auth = read_auth(root.get("auth").as_ref(), path)?;
        let lock = if auth.is_some() { Lock::Keys } else { Lock::Open };
        let gateway = read_gateway(root.get("gateway").as_ref(), path, overrides.listen, lock)?;
        let mut engine = read_engine(root.get("engine").as_ref(), directory)?;
        let functions = root.get("function");
        if let (Role::Gateway, Some(functions)) = (overrides.role, &functions) {
            let (place, problem) = (functions.place(), Problem::NoFunctionsHere);
            return Err(ConfigError::Refused { place, problem });
        }
        let functions = read_functions(functions.as_ref(), search, engine.container)?;
        engine.shards = overrides.shards.or(engine.shards);
        let file = path.display().to_string();
        Ok(Config { file, overrides, gateway, auth, engine, functions })
    }
}

impl Default for Gateway {
    fn default() -> Gateway {
        Gateway {
            listen: LISTEN_DEFAULT,
            admin_listen: None,
            body_max: 16 << 20,
            connections_max: 8192,
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            write_timeout: Duration::from_secs(30),
            access_log: None,
            cors_origins: Vec::new(),
            queue: 1024,
            tls: None,
            engines: None,
            http2: None,
        }
    }
}

fn read_gateway(
    section: Option<&Value<'_>>,
    file: &Path,
    listen_option: Option<SocketAddr>,
    mut lock: Lock,
) -> Result<Gateway, ConfigError> {
    let mut gateway = Gateway::default();
    let directory = file.parent().unwrap_or(Path::new(""));
    let mut place = None;
    if let Some(section) = section {
        let table = section.table(&[
            "listen",
            "admin_listen",
            "insecure",
            "body_max",
            "connections_max",
            "head_timeout",
            "body_timeout",
            "idle_timeout",
            "write_timeout",
            "access_log",
            "cors_origins",
            "queue",
            "tls",
            "engines",
            "http2",
        ])?;
        if let Some(value) = table.get("listen") {
            gateway.listen = value.parsed(LISTEN_EXPECTED)?;
            place = Some(value.place());
        }
        let insecure = table.get("insecure").map(|value| value.flag()).transpose()? == Some(true);
        if insecure {
            lock = lock.or_insecure();
        }
        gateway.admin_listen = read_admin_listen(&table, "[gateway]", insecure)?;
        read_limits(&table, file, &mut gateway)?;
        if let Some(section) = table.get("tls") {
            let (tls, place) = read_tls(&section, directory)?;
            refuse_exposed(tls.listen, place, lock)?;
            gateway.tls = Some(tls);
        }
        if let Some(section) = table.get("http2") {
            let (http2, listens) = read_http2(&section, gateway.tls.as_ref())?;
            for (listen, place) in listens {
                refuse_exposed(listen, place, lock)?;
            }
            gateway.http2 = Some(http2);
        }
        table.read("engines", &mut gateway.engines, |section| {
            read_engines(section, directory).map(Some)
        })?;
    }
    if let Some(listen) = listen_option {
        gateway.listen = listen;
        place = Some(Place::Option("--listen"));
    }
    if let Some(place) = place {
        refuse_exposed(gateway.listen, place, lock)?;
    }
    Ok(gateway)
}

/// What is the same at every door.
fn read_limits(table: &Table<'_>, file: &Path, gateway: &mut Gateway) -> Result<(), ConfigError> {
    table.read("access_log", &mut gateway.access_log, |value| {
        door::destination(value, file).map(Some)
    })?;
    table.read("cors_origins", &mut gateway.cors_origins, |value| door::origins(value))?;
    table.read("body_max", &mut gateway.body_max, |value| {
        // The range keeps it within 32 bits.
        value.size(1..=BODY_MAX).map(|size| u32::try_from(size).unwrap_or(u32::MAX))
    })?;
    table
        .read("queue", &mut gateway.queue, |value| value.integer(0..=QUEUE_MAX).map(usize::from))?;
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
    Ok(())
}

fn read_engine(section: Option<&Value<'_>>, directory: &Path) -> Result<Engine, ConfigError> {
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
        admin_listen: None,
        link: None,
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
        "admin_listen",
        "insecure",
        "node",
        "gateways",
        "resolver",
        "link",
    ])?;
    let mut insecure = false;
    table.read("insecure", &mut insecure, |value| value.flag())?;
    engine.admin_listen = read_admin_listen(&table, "[engine]", insecure)?;
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
    engine.link = read_link(&table, directory)?;
    Ok(engine)
}

#[cfg(test)]
mod function_tests;
#[cfg(test)]
mod link_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tls_tests;
