//! Starts what is measured: processes, their configuration, their cores.
//!
//! Every target is configured as its own documentation advises for this job: kept connections, no
//! log, no delay of small packets. `docs/benchmarking.md` names the settings.

use std::fmt::Write;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::unistd::Pid;

use super::Error;
use super::cases::{Functions, Placement, Rpc, Target};
use super::process::{Server, descendants, free_port, nth_core};
use super::programs::Programs;

/// A thousand containers take their time.
const READY_MAX: Duration = Duration::from_secs(60);
const EXAMPLES: &str = include_str!("../../../examples/nightcore.toml");

/// A running target.
pub struct Instance {
    /// Where it takes requests.
    pub address: SocketAddr,
    /// Ended from the first to the last: a front before its backend.
    processes: Vec<Process>,
}

struct Process {
    server: Server,
    name: &'static str,
    /// What processes are called that it started.
    children: &'static str,
}

/// Starts targets into a scratch directory.
pub struct Starter<'a> {
    programs: &'a Programs,
    scratch: &'a Path,
    started: u32,
}

impl Instance {
    /// Its processes by name, children included.
    #[must_use]
    pub fn pids(&self) -> Vec<(&'static str, Pid)> {
        let mut pids = Vec::new();
        for process in &self.processes {
            let pid = process.server.pid();
            pids.push((process.name, pid));
            pids.extend(descendants(pid).into_iter().map(|child| (process.children, child)));
        }
        pids
    }

    /// Ends all of it.
    pub fn stop(self) -> Result<(), Error> {
        self.processes.into_iter().try_for_each(|process| process.server.stop())
    }
}

impl<'a> Starter<'a> {
    /// Targets of `programs` with files in `scratch`.
    #[must_use]
    pub fn new(programs: &'a Programs, scratch: &'a Path) -> Starter<'a> {
        Starter { programs, scratch, started: 0 }
    }

    /// Starts `target` and waits until it serves; [`Target::Nothing`] is no target.
    pub fn start(&mut self, target: &Target) -> Result<Option<Instance>, Error> {
        let instance = match target {
            Target::Nothing => return Ok(None),
            Target::Nightcore(functions) => self.nightcore(*functions),
            Target::Nginx(placement) => self
                .nginx(None, *placement, 0)
                .map(|(address, process)| Instance { address, processes: vec![process] }),
            Target::NginxProxy(placement) => self.nginx_proxy(*placement),
            Target::Hyper(placement) => self.hyper(*placement),
            Target::Rpc(rpc, placement) => self.rpc(*rpc, *placement),
            Target::Workerd => self.workerd(),
        };
        instance.map(Some)
    }

    fn nightcore(&mut self, functions: Functions) -> Result<Instance, Error> {
        self.nightcore_with(&configuration(functions), None)
    }

    /// Starts `nightcore up` with a configuration, on a core or wherever it likes, and waits until
    /// it serves.
    pub fn nightcore_with(
        &mut self,
        configuration: &str,
        core: Option<usize>,
    ) -> Result<Instance, Error> {
        let config = self.file("toml");
        write(&config, configuration)?;
        let address = self.address()?;
        let mut command = Command::new(program("nightcore", self.programs.nightcore.as_deref())?);
        command.args(["up", "-c"]).arg(&config).args(["--listen", &address.to_string()]);
        let mut server = self.server("nightcore", command, core)?;
        let ready = format!("http://{address}/readyz");
        server.wait_until(READY_MAX, |_| ureq::get(&ready).call().is_ok())?;
        let process = Process { server, name: "nightcore", children: "worker" };
        Ok(Instance { address, processes: vec![process] })
    }

    /// Starts a gateway and an engine that dials it, and waits until `function` answers.
    pub fn apart(
        &mut self,
        gateway: &str,
        engine: &str,
        function: &str,
    ) -> Result<Instance, Error> {
        let address = self.address()?;
        let mut processes = Vec::new();
        for (role, configuration) in [("gateway", gateway), ("engine", engine)] {
            let config = self.file("toml");
            write(&config, configuration)?;
            let program = program("nightcore", self.programs.nightcore.as_deref())?;
            let mut command = Command::new(program);
            command.args([role, "-c"]).arg(&config);
            if role == "gateway" {
                command.args(["--listen", &address.to_string()]);
            }
            let server = self.server(role, command, None)?;
            processes.push(Process { server, name: role, children: "worker" });
        }
        let url = format!("http://{address}/function/{function}");
        if let Some(last) = processes.last_mut() {
            last.server.wait_until(READY_MAX, |_| ureq::post(&url).send("").is_ok())?;
        }
        Ok(Instance { address, processes })
    }

    fn nginx_proxy(&mut self, placement: Placement) -> Result<Instance, Error> {
        let (behind, backend) = self.nginx(None, placement, 1)?;
        let (address, front) = self.nginx(Some(behind), placement, 0)?;
        Ok(Instance { address, processes: vec![front, backend] })
    }

    /// One nginx of one worker process, which answers by itself or asks `backend`.
    fn nginx(
        &mut self,
        backend: Option<SocketAddr>,
        placement: Placement,
        nth: usize,
    ) -> Result<(SocketAddr, Process), Error> {
        let address = self.address()?;
        let directory = self.file("nginx");
        fs::create_dir(&directory)
            .map_err(|source| Error::Write { path: directory.clone(), source })?;
        let config = directory.join("nginx.conf");
        write(&config, &nginx_conf(address, backend))?;
        let mut command = Command::new(program("nginx", self.programs.nginx.as_deref())?);
        command.arg("-p").arg(&directory).arg("-c").arg(&config).args(["-e", "stderr"]);
        let mut server = self.server("nginx", command, placement.core(nth)?)?;
        server.wait_until(READY_MAX, |_| TcpStream::connect(address).is_ok())?;
        let name = if backend.is_some() { "front" } else { "nginx" };
        Ok((address, Process { server, name, children: name }))
    }

    fn hyper(&mut self, placement: Placement) -> Result<Instance, Error> {
        let address = self.address()?;
        let arguments = ["hyper", "--listen", &address.to_string()].map(str::to_owned);
        let process = self.peer("hyper", &arguments, placement, 0)?;
        Ok(Instance { address, processes: vec![process] })
    }

    fn rpc(&mut self, rpc: Rpc, placement: Placement) -> Result<Instance, Error> {
        let address = self.address()?;
        let (backend, front, behind) = match rpc {
            Rpc::Hyper => ("hyper", "hyper-front", self.address()?.to_string()),
            Rpc::TonicTcp => ("tonic", "tonic-front", format!("tcp:{}", self.address()?)),
            Rpc::TonicUnix => {
                ("tonic", "tonic-front", format!("unix:{}", self.file("sock").display()))
            }
        };
        let arguments = [backend, "--listen", &behind].map(str::to_owned);
        let backend = self.peer("backend", &arguments, placement, 1)?;
        let listen = address.to_string();
        let arguments = [front, "--listen", &listen, "--backend", &behind].map(str::to_owned);
        let front = self.peer("front", &arguments, placement, 0)?;
        Ok(Instance { address, processes: vec![front, backend] })
    }

    fn peer(
        &mut self,
        name: &'static str,
        arguments: &[String],
        placement: Placement,
        nth: usize,
    ) -> Result<Process, Error> {
        let mut command = Command::new(program("peer", self.programs.peer.as_deref())?);
        command.args(arguments).args(["--threads", placement.threads()]);
        let mut server = self.server(name, command, placement.core(nth)?)?;
        server.wait_until(READY_MAX, |output| output.contains("listening on"))?;
        Ok(Process { server, name, children: name })
    }

    fn workerd(&mut self) -> Result<Instance, Error> {
        let address = self.address()?;
        let mut command = Command::new(program("workerd", self.programs.workerd.as_deref())?);
        command.arg("serve").arg(&self.programs.workerd_config);
        command.args(["--socket-addr", &format!("http={address}")]);
        let mut server = self.server("workerd", command, None)?;
        server.wait_until(READY_MAX, |_| TcpStream::connect(address).is_ok())?;
        let process = Process { server, name: "workerd", children: "workerd" };
        Ok(Instance { address, processes: vec![process] })
    }

    fn server(
        &mut self,
        name: &str,
        command: Command,
        core: Option<usize>,
    ) -> Result<Server, Error> {
        let log = self.file("log");
        Server::start(name, command, core, &log)
    }

    /// A path that nobody used yet.
    fn file(&mut self, extension: &str) -> PathBuf {
        self.started += 1;
        self.scratch.join(format!("{}.{extension}", self.started))
    }

    /// An address that nobody listens on, as far as one can tell without keeping it.
    pub fn address(&self) -> Result<SocketAddr, Error> {
        let port = free_port()
            .map_err(|source| Error::Start { name: "a free port".to_owned(), source })?;
        Ok(SocketAddr::from(([127, 0, 0, 1], port)))
    }
}

impl Placement {
    /// The core of the process that is the `nth` of its target, if it has one.
    fn core(self, nth: usize) -> Result<Option<usize>, Error> {
        match self {
            Placement::Free | Placement::TwoThreads => Ok(None),
            Placement::OneCore => nth_core(0).map(Some),
            Placement::CoreEach => nth_core(nth).map(Some),
        }
    }

    fn threads(self) -> &'static str {
        if self == Placement::TwoThreads { "2" } else { "1" }
    }
}

fn program<'a>(name: &str, path: Option<&'a Path>) -> Result<&'a Path, Error> {
    path.ok_or_else(|| Error::Missing { name: name.to_owned() })
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(|source| Error::Write { path: path.to_owned(), source })
}

fn configuration(functions: Functions) -> String {
    let nop = |name: &str| format!("[[function]]\nname = \"{name}\"\nlibrary = \"libnop.so\"\n");
    match functions {
        Functions::Examples => EXAMPLES.to_owned(),
        Functions::Nops(count) => {
            (2..=count).fold(nop("nop"), |all, n| all + &nop(&format!("nop{n}")))
        }
        Functions::Workers(count) => {
            format!("{}min_workers = {count}\nmax_workers = {count}\n", nop("nop"))
        }
    }
}

/// Tuned as one would for this: one worker process a core given, no log, connections that never
/// end.
fn nginx_conf(address: SocketAddr, backend: Option<SocketAddr>) -> String {
    let mut http = String::new();
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        let _ = writeln!(http, "    {kind}_temp_path {kind};");
    }
    let location = match backend {
        None => "return 200;".to_owned(),
        Some(backend) => {
            let _ = writeln!(
                http,
                "    upstream backend {{ server {backend}; keepalive 64; \
                 keepalive_requests 1000000000; }}"
            );
            "proxy_pass http://backend; proxy_http_version 1.1; \
             proxy_set_header Connection \"\";"
                .to_owned()
        }
    };
    format!(
        "daemon off;\nworker_processes 1;\npid pid;\nerror_log stderr error;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\n    access_log off;\n    keepalive_requests 1000000000;\n{http}\
         \x20   server {{ listen {address}; location / {{ {location} }} }}\n}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_deployed_as_often_as_asked() {
        let text = configuration(Functions::Nops(20));
        assert_eq!(text.matches("[[function]]").count(), 20);
        assert!(text.contains("\"nop\"") && text.contains("\"nop20\"") && !text.contains("nop21"));
    }

    #[test]
    fn processes_of_a_target_get_cores_only_where_asked() {
        let core = |placement: Placement, nth| placement.core(nth).unwrap();
        assert_eq!(core(Placement::OneCore, 1), core(Placement::CoreEach, 0));
        assert!(core(Placement::CoreEach, 1).is_some());
        assert_eq!(core(Placement::TwoThreads, 1), None);
    }
}
