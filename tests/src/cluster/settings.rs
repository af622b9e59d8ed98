//! What the processes of a cluster are configured with, as operators write it.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// A function that may be run again for a call whose fate is unknown.
pub const IDEMPOTENT: &str = "lookup";
/// A function that may not.
pub const ONCE: &str = "charge";

/// Of gateways, for clients.
pub const CLIENTS_PORT: u16 = 8080;
/// Of gateways, for operators.
pub const ADMIN_PORT: u16 = 8079;
/// Of gateways, for engines.
pub const ENGINES_PORT: u16 = 8090;

/// Two, so that links between shards of different indices exist.
const SHARDS: u16 = 2;
/// Workers of a function on an engine. As many as calls that may be there at once when one of three
/// engines is lost; the pool never grows, so that its growth is in no measurement.
const WORKERS: u16 = 8;

/// What clusters of different tests differ in.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long every call takes, for each engine, in microseconds.
    pub service_us: Vec<u32>,
    /// Gateways.
    pub gateways: u8,
    /// How long an engine that drains waits for its calls, in milliseconds.
    pub drain_timeout_ms: u32,
    /// How gateways and engines know each other.
    pub security: Security,
}

/// How gateways and engines know each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// By a key that all have.
    Key,
    /// By certificates of one authority; the links are TLS.
    Certificates,
}

/// Who holds a key or certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bearer {
    /// A gateway of the cluster.
    Gateway,
    /// An engine of the cluster.
    Engine,
    /// Somebody whose key or authority is another one.
    Foreign,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            service_us: vec![2_000; 3],
            gateways: 2,
            drain_timeout_ms: 10_000,
            security: Security::Key,
        }
    }
}

/// How long calls take on one engine.
#[derive(Clone, Copy, Debug)]
pub struct Calls {
    /// Each, in microseconds.
    pub service_us: u32,
    /// At most, once it drains, in milliseconds.
    pub drain_timeout_ms: u32,
}

/// The files that an engine needs.
#[derive(Clone, Copy, Debug)]
pub struct Files<'a> {
    /// The library of both functions.
    pub library: &'a Path,
    /// What the functions write.
    pub ledger: &'a Path,
    /// What [`credentials`] says.
    pub credentials: &'a str,
    /// Of sockets.
    pub runtime: &'a Path,
}

/// `engine.toml` of an engine that is called `node`, and whose functions answer with `name`.
#[must_use]
pub fn engine(
    node: &str,
    name: &str,
    calls: Calls,
    gateways: &[SocketAddr],
    files: Files<'_>,
) -> String {
    let Calls { service_us, drain_timeout_ms } = calls;
    let Files { library, ledger, credentials, runtime } = files;
    let gateways: Vec<String> = gateways.iter().map(|address| format!("\"{address}\"")).collect();
    let mut text = format!(
        "[engine]\nnode = \"{node}\"\nshards = {SHARDS}\nruntime_dir = \"{}\"\n\
         container = \"process\"\ndrain_timeout = \"{drain_timeout_ms}ms\"\ngateways = [{}]\n\
         [engine.link]\n{credentials}",
        runtime.display(),
        gateways.join(", "),
    );
    for (function, more) in [(IDEMPOTENT, "idempotent = true\n"), (ONCE, "")] {
        write!(
            text,
            "[[function]]\nname = \"{function}\"\nlibrary = \"{}\"\n{more}\
             min_workers = {WORKERS}\nmax_workers = {WORKERS}\nconcurrency = \"fixed\"\n\
             timeout = \"5s\"\n\
             env = {{ HOST = \"{name}\", SERVICE_US = \"{service_us}\", LEDGER = \"{}\" }}\n",
            library.display(),
            ledger.display(),
        )
        .expect("a String");
    }
    text
}

/// `gateway.toml` of a gateway at this address.
#[must_use]
pub fn gateway(address: IpAddr, credentials: &str, runtime: &Path) -> String {
    // Its clients are the test's threads alone.
    format!(
        "[gateway]\nlisten = \"{}\"\ninsecure = true\n\
         [gateway.engines]\nlisten = \"{}\"\n{credentials}\
         [engine]\nshards = {SHARDS}\nruntime_dir = \"{}\"\ndrain_timeout = \"10s\"\n",
        SocketAddr::new(address, CLIENTS_PORT),
        SocketAddr::new(address, ENGINES_PORT),
        runtime.display(),
    )
}

/// The lines by which a gateway or an engine proves itself and knows the others, with the files that
/// the cluster has in `directory`.
#[must_use]
pub fn credentials(security: Security, bearer: Bearer, directory: &Path) -> String {
    let path = |name: &str| directory.join(name).display().to_string();
    let name = match bearer {
        Bearer::Gateway => "gateway",
        Bearer::Engine => "engine",
        Bearer::Foreign => "foreign",
    };
    match security {
        Security::Key if bearer == Bearer::Foreign => {
            format!("key_file = \"{}\"\n", path("foreign-link.key"))
        }
        Security::Key => format!("key_file = \"{}\"\n", path("link.key")),
        Security::Certificates => format!(
            "certificate = \"{}\"\nkey = \"{}\"\nauthorities = \"{}\"\n",
            path(&format!("{name}.pem")),
            path(&format!("{name}.key")),
            path("authority.pem"),
        ),
    }
}
