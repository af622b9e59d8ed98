//! Round trips between two processes by iceoryx2's request-response: the client sends bytes, the
//! server sends them back, both through shared memory. A side waits for the other's event, or polls.
//!
//! The client starts the server, which dies with it; the services carry the client's process id in
//! their name, so several pairs can run at once.

use std::fmt::Display;
use std::io::{self, BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::time::Instant;

use clap::ValueEnum;
use hdrhistogram::Histogram;
use iceoryx2::port::client::Client;
use iceoryx2::port::listener::Listener;
use iceoryx2::port::notifier::Notifier;
use iceoryx2::prelude::{
    LogLevel, Node, NodeBuilder, ServiceName, SignalHandlingMode, ipc, set_log_level,
};
use iceoryx2::service::port_factory::request_response::PortFactory;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::sample::Sample;
use crate::server::announce;

/// Round trips before those that count.
const WARM_UP_ROUNDS: u64 = 1_000;

/// How a side waits for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Sleeps until an event of the other side.
    Event,
    /// Polls, and keeps its core busy.
    Busy,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Mode::Event => "event",
            Mode::Busy => "busy",
        }
    }
}

/// Where the two processes run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cores {
    /// Core of the process that measures.
    pub client: usize,
    /// Core of the one that answers.
    pub server: usize,
}

impl FromStr for Cores {
    type Err = String;

    fn from_str(text: &str) -> Result<Cores, String> {
        let core = |text: &str| text.parse().map_err(|error| format!("{text:?}: {error}"));
        let (client, server) = text.split_once(',').ok_or("expected CLIENT,SERVER as in 0,1")?;
        Ok(Cores { client: core(client)?, server: core(server)? })
    }
}

/// What to measure.
pub struct Plan {
    /// How both sides wait.
    pub mode: Mode,
    /// Bytes of request and answer.
    pub size: usize,
    /// Round trips that count.
    pub rounds: u64,
    /// Where; the kernel's choice otherwise.
    pub cores: Option<Cores>,
}

/// Why there is no measurement.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// iceoryx2 refused something.
    #[error("iceoryx2: {action}: {cause}")]
    Iceoryx2 {
        /// What.
        action: &'static str,
        /// Its own words.
        cause: String,
    },
    /// The system refused a process or its core.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The server ended before it was ready.
    #[error("the server ended at its start")]
    Server,
    /// The answer is not an echo.
    #[error("{sent} bytes sent, {received} received")]
    Length {
        /// Bytes of the request.
        sent: usize,
        /// Bytes of the answer.
        received: usize,
    },
    /// A time that does not fit into the histogram.
    #[error("{0}")]
    Time(#[from] hdrhistogram::RecordError),
    /// The histogram itself.
    #[error("{0}")]
    Histogram(#[from] hdrhistogram::CreationError),
}

/// One process's ends of the services: requests, answers and the two directions of events.
struct Ends<Port> {
    // First, so that it outlives none of what it keeps alive.
    port: Port,
    notifier: Notifier<ipc::Service>,
    listener: Listener<ipc::Service>,
    _node: Node<ipc::Service>,
}

impl<Port> Ends<Port> {
    /// Wakes the other side, if it sleeps in this mode.
    fn notify(&self, mode: Mode) -> Result<(), Error> {
        match mode {
            Mode::Event => self.notifier.notify().map(drop).map_err(failed("notify")),
            Mode::Busy => Ok(()),
        }
    }

    /// Returns when something may have come.
    fn wait(&self, mode: Mode) -> Result<(), Error> {
        match mode {
            Mode::Event => self.listener.blocking_wait(drop).map(drop).map_err(failed("wait")),
            // No pause between two polls, as in iceoryx2's own benchmarks.
            Mode::Busy => Ok(()),
        }
    }
}

type Calling = Client<ipc::Service, [u8], (), [u8], ()>;
type Calls = PortFactory<ipc::Service, [u8], (), [u8], ()>;

/// Opens the services, each no larger than one pair needs: less to scan.
fn open<Port>(
    service: &str,
    [inbound, outbound]: [&str; 2],
    port: impl FnOnce(&Calls) -> Result<Port, Error>,
) -> Result<Ends<Port>, Error> {
    set_log_level(LogLevel::Error);
    let node = NodeBuilder::new()
        .signal_handling_mode(SignalHandlingMode::Disabled)
        .create::<ipc::Service>()
        .map_err(failed("create node"))?;
    let name =
        |suffix| ServiceName::new(&format!("{service}/{suffix}")).map_err(failed("name a service"));
    let events = |direction| {
        node.service_builder(&name(direction)?)
            .event()
            .max_nodes(2)
            .max_listeners(1)
            .max_notifiers(1)
            .event_id_max_value(0)
            .open_or_create()
            .map_err(failed("open events"))
    };
    let calls = node
        .service_builder(&name("calls")?)
        .request_response::<[u8], [u8]>()
        .max_nodes(2)
        .max_clients(1)
        .max_servers(1)
        .max_active_requests_per_client(1)
        .max_response_buffer_size(1)
        .enable_fire_and_forget_requests(false)
        .open_or_create()
        .map_err(failed("open calls"))?;
    Ok(Ends {
        port: port(&calls)?,
        listener: events(inbound)?.listener_builder().create().map_err(failed("listen"))?,
        notifier: events(outbound)?
            .notifier_builder()
            .create()
            .map_err(failed("create notifier"))?,
        _node: node,
    })
}

/// Measures as the client, with a server of its own.
///
/// # Errors
/// iceoryx2 or the system refused something, or an answer was not an echo.
pub fn run(plan: &Plan) -> Result<Sample, Error> {
    let service = format!("nightcore-peer-{}", std::process::id());
    if let Some(cores) = plan.cores {
        pin(cores.client)?;
    }
    let mut server = start_server(plan, &service)?;
    let measured = measure(plan, &service);
    // It sleeps, or polls, for a request that will not come.
    server.kill()?;
    server.wait()?;
    measured
}

fn measure(plan: &Plan, service: &str) -> Result<Sample, Error> {
    let client = open(service, ["answered", "asked"], |calls| {
        calls
            .client_builder()
            .initial_max_slice_len(plan.size)
            .create()
            .map_err(failed("create client"))
    })?;
    let payload = vec![b'x'; plan.size];
    for _ in 0..WARM_UP_ROUNDS {
        round_trip(&client, plan.mode, &payload)?;
    }
    let mut times = Histogram::new(3)?;
    let start = Instant::now();
    for _ in 0..plan.rounds {
        let sent = Instant::now();
        round_trip(&client, plan.mode, &payload)?;
        times.record(u64::try_from(sent.elapsed().as_nanos()).unwrap_or(u64::MAX))?;
    }
    let elapsed = start.elapsed();
    let mut sample = Sample::new(&format!("iceoryx2_{}", plan.mode.name()), &times);
    sample.rps = Some(plan.rounds as f64 / elapsed.as_secs_f64());
    sample.extra.insert("size_bytes".to_owned(), plan.size as f64);
    Ok(sample)
}

fn round_trip(client: &Ends<Calling>, mode: Mode, payload: &[u8]) -> Result<(), Error> {
    let request = client.port.loan_slice_uninit(payload.len()).map_err(failed("loan request"))?;
    let pending = request.write_from_slice(payload).send().map_err(failed("send request"))?;
    client.notify(mode)?;
    loop {
        client.wait(mode)?;
        if let Some(answer) = pending.receive().map_err(failed("receive answer"))? {
            let (sent, received) = (payload.len(), answer.payload().len());
            return if sent == received { Ok(()) } else { Err(Error::Length { sent, received }) };
        }
    }
}

/// Answers the client that started this process, until it ends.
///
/// # Errors
/// iceoryx2 or the system refused something.
pub fn serve(mode: Mode, size: usize, service: &str, core: Option<usize>) -> Result<(), Error> {
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(io::Error::from)?;
    if let Some(core) = core {
        pin(core)?;
    }
    let server = open(service, ["asked", "answered"], |calls| {
        calls.server_builder().initial_max_slice_len(size).create().map_err(failed("create server"))
    })?;
    announce(service)?;
    loop {
        server.wait(mode)?;
        while let Some(request) = server.port.receive().map_err(failed("receive request"))? {
            let payload = request.payload();
            let answer = request.loan_slice_uninit(payload.len()).map_err(failed("loan answer"))?;
            answer.write_from_slice(payload).send().map_err(failed("send answer"))?;
            drop(request);
            server.notify(mode)?;
        }
    }
}

/// Starts `peer iceoryx2-server` and returns when it is ready.
fn start_server(plan: &Plan, service: &str) -> Result<Child, Error> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["iceoryx2-server", "--mode", plan.mode.name(), "--service", service]);
    command.args(["--size", &plan.size.to_string()]);
    if let Some(cores) = plan.cores {
        command.args(["--core", &cores.server.to_string()]);
    }
    let mut server = command.stdout(Stdio::piped()).spawn()?;
    let mut ready = String::new();
    if let Some(out) = server.stdout.take() {
        BufReader::new(out).read_line(&mut ready)?;
    }
    if ready.is_empty() {
        server.wait()?;
        return Err(Error::Server);
    }
    Ok(server)
}

fn pin(core: usize) -> io::Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &cores)?)
}

fn failed<E: Display>(action: &'static str) -> impl Fn(E) -> Error {
    move |cause| Error::Iceoryx2 { action, cause: cause.to_string() }
}
