//! The hosts of a cluster: a network namespace each, all on one bridge in a namespace of its own.
//!
//! ```text
//!   client    gateway 0   gateway 1   engine 0   engine 1   engine 2      a namespace each: eth0
//!     │           │           │           │          │          │         veth pairs
//!     └───────────┴───────────┴── bridge ─┴──────────┴──────────┘         one more namespace
//! ```
//!
//! A host is cut off by taking its port of the bridge down, which is a cable pulled at the switch: no
//! FIN, no reset, no error for either side. The namespaces have no names: they are held by
//! descriptors of this process and by the processes in them, so they end with these, however the test
//! ends, and none is ever left over.
//!
//! Where namespaces are not permitted, hosts are addresses of the loopback interface. These cannot be
//! cut off; all else is the same.

use std::fs::File;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

/// Where a thread finds its own namespace.
const OWN_NAMESPACE: &str = "/proc/thread-self/ns/net";
/// Names of both ends of a pair are short: the kernel takes 15 bytes.
const PORT_PREFIX: &str = "port";

/// A host of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// That of the test's own threads.
    Client,
    /// Of the gateway of this index.
    Gateway(u8),
    /// Of the engine of this index.
    Engine(u8),
}

/// What connects the hosts.
#[derive(Debug)]
pub struct Network {
    wires: Wires,
    hosts: Vec<Host>,
}

#[derive(Debug)]
enum Wires {
    Namespaces {
        bridge: File,
        /// As in `hosts`.
        namespaces: Vec<File>,
        /// Where this process was.
        home: File,
    },
    /// The middle bytes of the addresses, so that several tests can run at once.
    Loopback([u8; 2]),
}

/// Which side of a connection or what state a host's cable is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cable {
    Up,
    Down,
}

impl Network {
    /// Makes a host for the client, and for so many gateways and engines. The calling thread, and those
    /// that it starts from now on, are on the client's host.
    #[must_use]
    pub fn new(gateways: u8, engines: u8) -> Network {
        let hosts = std::iter::once(Host::Client)
            .chain((0..gateways).map(Host::Gateway))
            .chain((0..engines).map(Host::Engine))
            .collect::<Vec<_>>();
        let wires = namespaces(&hosts).unwrap_or_else(|error| {
            eprintln!("no network namespaces here ({error}): hosts are loopback addresses");
            loopback()
        });
        let network = Network { wires, hosts };
        network.enter(Host::Client);
        network
    }

    /// Its address.
    #[must_use]
    pub fn address(&self, host: Host) -> IpAddr {
        let number = number(host);
        IpAddr::V4(match &self.wires {
            Wires::Namespaces { .. } => Ipv4Addr::new(10, 9, 0, number),
            Wires::Loopback([high, low]) => Ipv4Addr::new(127, *high, *low, number),
        })
    }

    /// Runs something on a host; processes that it starts stay there.
    ///
    /// # Panics
    /// If it does.
    pub fn within<T: Send>(&self, host: Host, action: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter(host);
                action()
            });
            thread.join().expect("it does not panic")
        })
    }

    /// Whether [`Network::cut`] works; says so if not.
    #[must_use]
    pub fn can_cut(&self) -> bool {
        let can = matches!(self.wires, Wires::Namespaces { .. });
        if !can {
            eprintln!("SKIPPED: no host can be cut off where there are no network namespaces");
        }
        can
    }

    /// Pulls the cable of a host.
    ///
    /// # Panics
    /// On loopback.
    pub fn cut(&self, host: Host) {
        self.set_cable(host, Cable::Down);
    }

    /// Plugs it in again.
    ///
    /// # Panics
    /// On loopback.
    pub fn heal(&self, host: Host) {
        self.set_cable(host, Cable::Up);
    }

    fn set_cable(&self, host: Host, cable: Cable) {
        let Wires::Namespaces { bridge, .. } = &self.wires else { panic!("there is no cable") };
        let state = if cable == Cable::Up { "up" } else { "down" };
        let line = format!("link set {} {state}\n", port(host));
        ip(bridge, &line).expect("the port is there");
    }

    /// Moves the calling thread to a host.
    fn enter(&self, host: Host) {
        if let Wires::Namespaces { namespaces, .. } = &self.wires {
            let index = self.hosts.iter().position(|known| *known == host).expect("a host");
            setns(&namespaces[index], CloneFlags::CLONE_NEWNET).expect("it is ours");
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Wires::Namespaces { home, .. } = &self.wires {
            // A thread that cannot go back ends with its test anyway.
            let _ = setns(home, CloneFlags::CLONE_NEWNET);
        }
    }
}

/// The last byte of its address.
fn number(host: Host) -> u8 {
    match host {
        Host::Client => 200,
        Host::Gateway(index) => 1 + index,
        Host::Engine(index) => 101 + index,
    }
}

fn port(host: Host) -> String {
    format!("{PORT_PREFIX}{}", number(host))
}

fn loopback() -> Wires {
    static CLUSTERS: AtomicU32 = AtomicU32::new(0);
    // SYNC(CLUSTERS): a plain counter; it carries no other data.
    let cluster = CLUSTERS.fetch_add(1, Ordering::Relaxed);
    let [_, _, high, low] = (std::process::id().wrapping_mul(16) + cluster).to_be_bytes();
    // 127.0.x.x is everybody's.
    Wires::Loopback([high.max(1), low])
}

fn namespaces(hosts: &[Host]) -> io::Result<Wires> {
    let home = File::open(OWN_NAMESPACE)?;
    let bridge = namespace()?;
    ip(&bridge, "link add bridge0 type bridge\nlink set bridge0 up\n")?;
    let mut made = Vec::new();
    for host in hosts {
        let namespace = namespace()?;
        let (port, number) = (port(*host), number(*host));
        let path = format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd());
        ip(
            &bridge,
            &format!(
                "link add {port} type veth peer name eth0 netns {path}\n\
                 link set {port} master bridge0 up\n"
            ),
        )?;
        ip(
            &namespace,
            &format!("link set lo up\naddr add 10.9.0.{number}/24 dev eth0\nlink set eth0 up\n"),
        )?;
        made.push(namespace);
    }
    Ok(Wires::Namespaces { bridge, namespaces: made, home })
}

/// A new network namespace, in which nobody is.
fn namespace() -> io::Result<File> {
    let make = || {
        unshare(CloneFlags::CLONE_NEWNET)?;
        File::open(OWN_NAMESPACE)
    };
    thread::spawn(make).join().expect("it does not panic")
}

/// Runs lines of `ip` in a namespace.
fn ip(namespace: &File, lines: &str) -> io::Result<()> {
    let run = || {
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
        let mut child = Command::new("ip")
            .args(["-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        // Dropped behind the lines, which ends them.
        child.stdin.take().expect("it is a pipe").write_all(lines.as_bytes())?;
        child.wait_with_output()
    };
    let output = thread::scope(|scope| scope.spawn(run).join().expect("it does not panic"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("ip: {}", String::from_utf8_lossy(&output.stderr).trim())))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;
    use crate::watchdog::PATIENCE;

    #[test]
    fn hosts_reach_each_other_by_their_addresses() {
        let network = Network::new(1, 1);
        let address = (network.address(Host::Gateway(0)), 0);
        let listener = network.within(Host::Gateway(0), || TcpListener::bind(address)).unwrap();
        let target = listener.local_addr().unwrap();
        let stream = network.within(Host::Engine(0), || TcpStream::connect(target)).unwrap();
        let (accepted, from) = listener.accept().unwrap();
        assert_eq!(from, stream.local_addr().unwrap());
        drop(accepted);
    }

    #[test]
    fn a_host_that_is_cut_off_hears_nothing_until_it_is_healed() {
        let network = Network::new(1, 1);
        if !network.can_cut() {
            return;
        }
        let address = (network.address(Host::Gateway(0)), 0);
        let listener = network.within(Host::Gateway(0), || TcpListener::bind(address)).unwrap();
        let target = listener.local_addr().unwrap();
        let mut stream = network.within(Host::Engine(0), || TcpStream::connect(target)).unwrap();
        let (mut accepted, _) = listener.accept().unwrap();

        network.cut(Host::Engine(0));
        accepted.write_all(b"x").unwrap();
        // What a cable delivers is there in microseconds: this long is for ever.
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let error = stream.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);

        network.heal(Host::Engine(0));
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 1);
    }
}
