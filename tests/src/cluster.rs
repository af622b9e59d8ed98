//! Gateways and engines as processes of their own, on hosts of their own.
//!
//! A [`Cluster`] is made of the real `nightcore gateway` and `nightcore engine`, which find each other
//! over a [`network`] whose cables can be pulled. Two functions are on every engine, `lookup`, which is
//! idempotent, and `charge`, which is not; they answer with the name of their engine, so that the
//! [`load`] knows who served it, and keep a [`ledger`] of the calls that they ran.
//!
//! An engine is called `engine-<index>.<generation>` by what it answers; a generation is a start.

pub mod certificates;
pub mod ledger;
pub mod load;
pub mod network;
pub mod node;
pub mod relay;
pub mod report;
pub mod settings;
pub mod stranger;

use std::ffi::OsStr;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

use crate::client::{Body, Connection, post};
use crate::functions::build;
use crate::watchdog::wait_until;
use certificates::save;
use ledger::Ledger;
use load::Load;
use network::{Host, Network};
use node::Node;
use settings::{Bearer, CLIENTS_PORT, Calls, ENGINES_PORT, Files, IDEMPOTENT, Security, Settings};

/// 256 bits, as a file of hexadecimal digits.
const KEY: &str = "8d5c1e02f7a94b36d0e8817c5a23f96b4ce1705f3892ad6604b7e9c1582d3fa0\n";
/// Another one, of those who do not belong here.
const FOREIGN_KEY: &str = "17f0c3b25a9e684d1cb7206e935fd8a44be6701d2c85f93ea07146d8bb92c5e3\n";

/// Running gateways and engines. All end when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    // Before the network: processes end first.
    gateways: Vec<Option<Node>>,
    engines: Vec<Option<Node>>,
    /// Starts of each engine, and of each gateway.
    engine_starts: Vec<u32>,
    gateway_starts: Vec<u32>,
    settings: Settings,
    probes: AtomicU32,
    library: PathBuf,
    network: Network,
    directory: TempDir,
}

impl Cluster {
    /// Starts all processes, and waits until every engine is served by every gateway.
    ///
    /// # Panics
    /// If it does not come to that.
    #[must_use]
    pub fn start(settings: Settings) -> Cluster {
        let directory = TempDir::with_prefix("nightcore-test-").expect("a temporary directory");
        save(directory.path(), "link.key", KEY);
        save(directory.path(), "foreign-link.key", FOREIGN_KEY);
        let library = build("host", directory.path());
        let engines = settings.service_us.len();
        let engine_count = u8::try_from(engines).expect("a few");
        // One host more than there are engines: for strangers, and engines that are added.
        let network = Network::new(settings.gateways, engine_count + 1);
        if settings.security == Security::Certificates {
            // A relay on the client's host passes for a gateway.
            let hosts = (0..settings.gateways).map(Host::Gateway).chain([Host::Client]);
            let addresses: Vec<IpAddr> = hosts.map(|host| network.address(host)).collect();
            certificates::write(directory.path(), &addresses);
        }
        let gateways = usize::from(settings.gateways);
        let mut cluster = Cluster {
            gateways: (0..gateways).map(|_| None).collect(),
            engines: (0..engines).map(|_| None).collect(),
            engine_starts: vec![0; engines],
            gateway_starts: vec![0; gateways],
            settings,
            probes: AtomicU32::new(0),
            library,
            network,
            directory,
        };
        (0..gateways).for_each(|index| cluster.start_gateway(index));
        (0..engines).for_each(|index| cluster.start_engine(index));
        (0..engines).for_each(|index| cluster.wait_until_serves(index));
        cluster
    }

    /// What connects the hosts.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The host behind all engines', on which no process of the cluster is.
    #[must_use]
    pub fn spare_host(&self) -> Host {
        Host::Engine(index_of(self.engines.len()))
    }

    /// Where each gateway takes engines.
    #[must_use]
    pub fn engines_doors(&self) -> Vec<SocketAddr> {
        self.doors(ENGINES_PORT)
    }

    /// Where each gateway takes clients.
    #[must_use]
    pub fn clients_doors(&self) -> Vec<SocketAddr> {
        self.doors(CLIENTS_PORT)
    }

    /// A load on all gateways.
    #[must_use]
    pub fn load(&self, per_second: u32) -> Load {
        Load::start(&self.clients_doors(), per_second)
    }

    /// The calls that functions have run so far.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        Ledger::read(&self.ledger_file())
    }

    /// The running engine of this index.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn engine(&self, index: usize) -> &Node {
        self.engines[index].as_ref().expect("it runs")
    }

    /// The running gateway of this index.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn gateway(&self, index: usize) -> &Node {
        self.gateways[index].as_ref().expect("it runs")
    }

    /// Gives it away: it is no longer waited for.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn take_engine(&mut self, index: usize) -> Node {
        self.engines[index].take().expect("it runs")
    }

    /// Gives it away: it is no longer waited for.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn take_gateway(&mut self, index: usize) -> Node {
        self.gateways[index].take().expect("it runs")
    }

    /// Starts an engine, the only one of its index from now on.
    pub fn start_engine(&mut self, index: usize) {
        self.engine_starts[index] += 1;
        let name = format!("engine-{index}.{}", self.engine_starts[index]);
        let host = Host::Engine(index_of(index));
        let calls = Calls {
            service_us: self.settings.service_us[index],
            drain_timeout_ms: self.settings.drain_timeout_ms,
        };
        let doors = self.engines_doors();
        let node =
            self.run_engine(host, &format!("engine-{index}"), &name, calls, &doors, Bearer::Engine);
        self.engines[index] = Some(node);
    }

    /// Starts an engine on the spare host that dials these addresses with what it bears. The cluster does not
    /// wait for it.
    #[must_use]
    pub fn start_outsider(&self, name: &str, doors: &[SocketAddr], bearer: Bearer) -> Node {
        let calls = Calls { service_us: 0, drain_timeout_ms: 1_000 };
        self.run_engine(self.spare_host(), name, name, calls, doors, bearer)
    }

    /// Starts a gateway where none runs.
    pub fn start_gateway(&mut self, index: usize) {
        let node = self.run_gateway(index, &[]);
        self.gateways[index] = Some(node);
    }

    /// Starts the successor of an engine beside it; when that one serves, the former one is drained.
    pub fn update_engine(&mut self, index: usize) {
        let former = self.take_engine(index);
        self.start_engine(index);
        self.wait_until_serves(index);
        former.terminate();
        former.expect_clean_end();
    }

    /// Starts the successor of a gateway, which takes over its sockets and has it drain.
    pub fn update_gateway(&mut self, index: usize) {
        let former = self.take_gateway(index);
        let node = self.run_gateway(index, &["--takeover"]);
        self.gateways[index] = Some(node);
        former.expect_clean_end();
    }

    /// Waits until an engine is served by every gateway that runs.
    ///
    /// # Panics
    /// If that never comes.
    pub fn wait_until_serves(&mut self, index: usize) {
        let name = self.engine(index).name().to_owned();
        for gateway in 0..self.gateways.len() {
            if self.gateways[gateway].is_none() {
                continue;
            }
            let what = format!("gateway {gateway} sends calls to {name}");
            wait_until(&what, || {
                for node in self.gateways.iter_mut().chain(&mut self.engines).flatten() {
                    assert!(!node.has_ended(), "{} has ended", node.name());
                }
                self.probe(gateway).is_some_and(|host| host == name)
            });
        }
    }

    /// Who serves a call through a gateway now, if anybody does.
    #[must_use]
    pub fn probe(&self, gateway: usize) -> Option<String> {
        // SYNC(probes): a plain counter; it carries no other data.
        let id = format!("probe-{}", self.probes.fetch_add(1, Ordering::Relaxed));
        let mut connection = Connection::open(self.clients_doors()[gateway]).ok()?;
        connection.try_send(&post(&format!("/function/{IDEMPOTENT}"), id.as_bytes())).ok()?;
        let answer = connection.try_read(Body::Present).ok()??;
        let (host, _) = answer.text().split_once(' ').filter(|_| answer.status == 200)?;
        Some(host.to_owned())
    }

    fn run_engine(
        &self,
        host: Host,
        node: &str,
        name: &str,
        calls: Calls,
        doors: &[SocketAddr],
        bearer: Bearer,
    ) -> Node {
        let runtime = self.runtime_directory(node);
        let security = self.settings.security;
        let credentials = settings::credentials(security, bearer, self.directory.path());
        let files = Files {
            library: &self.library,
            ledger: &self.ledger_file(),
            credentials: &credentials,
            runtime: &runtime,
        };
        let text = settings::engine(node, name, calls, doors, files);
        self.run(host, name, "engine", &text, &[])
    }

    fn run_gateway(&mut self, index: usize, options: &[&str]) -> Node {
        self.gateway_starts[index] += 1;
        let name = format!("gateway-{index}.{}", self.gateway_starts[index]);
        let host = Host::Gateway(index_of(index));
        let runtime = self.runtime_directory(&format!("gateway-{index}"));
        let address = self.network.address(host);
        let security = self.settings.security;
        let credentials = settings::credentials(security, Bearer::Gateway, self.directory.path());
        let text = settings::gateway(address, &credentials, &runtime);
        self.run(host, &name, "gateway", &text, options)
    }

    fn run(&self, host: Host, name: &str, role: &str, config: &str, options: &[&str]) -> Node {
        let file = self.file(&format!("{name}.toml"));
        fs::write(&file, config).expect("a file");
        let mut arguments = vec![OsStr::new(role), OsStr::new("-c"), file.as_os_str()];
        arguments.extend(options.iter().map(OsStr::new));
        Node::start(&self.network, host, name, self.directory.path(), &arguments)
    }

    /// Of all processes of one host, as on a real one.
    fn runtime_directory(&self, host: &str) -> PathBuf {
        let path = self.file(&format!("run-{host}"));
        fs::create_dir_all(&path).expect("a directory");
        path
    }

    fn doors(&self, port: u16) -> Vec<SocketAddr> {
        let gateways = (0..self.gateways.len()).map(|index| Host::Gateway(index_of(index)));
        gateways.map(|host| SocketAddr::new(self.network.address(host), port)).collect()
    }

    fn ledger_file(&self) -> PathBuf {
        self.file("ledger")
    }

    fn file(&self, name: &str) -> PathBuf {
        Path::join(self.directory.path(), name)
    }
}

fn index_of(index: usize) -> u8 {
    u8::try_from(index).expect("a few hosts")
}
