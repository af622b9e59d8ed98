//! One shard: a thread with a reactor, a gateway and an engine that share nothing with other shards.
//!
//! A request that comes in on a shard stays on its core: parsed here, dispatched here, answered here.
//! The first shard also accepts connections and passes them on to shards that have room; later, a
//! connection may move between two requests (`rebalance`).

mod connections;

use std::io;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use engine::core::Limits;
use engine::io::{Engine, Exchange, Function, Order};
use engine::mailbox::{Mailbox, Post, ToShard, ToSupervisor};
use engine::stats::Stats;
use engine::uplink::{self, Uplinks};
use gateway::portal::Portal;
use gateway::remote::{self, Remote};
use gateway::{Answer, Door, Gateway};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::Pid;
use reactor::clock::{self, Nanos};
use reactor::{Address, Event, Reactor, SetupError, Token, Wait};

use super::ThreadHook;
use super::acceptor::Acceptor;
use super::balance::Meter;
use super::doorman;
use super::entrance::Entrance;
use super::hosts::Hosts;
use super::http2::Annex;
use super::mail::{Dialled, NewLink, ShardMail, Succession};
use super::passage::Message;
use super::priority::Priority;
use super::rebalance::Balance;
use super::upstream::ShardUpstream;
use crate::config::{Config, Role};

/// Top byte of the tokens of the shard's own operations.
const OWNER: u64 = 0x53;
const MAIL: Token = Token(OWNER << 56);
/// Accepts have this plus their number.
const ACCEPT: u64 = (OWNER << 56) + 1;
/// How long a connection may be under way between two shards until the next look whether it still is.
const PASSAGE_TIME: Duration = Duration::from_millis(1);

/// What a shard is made of.
pub(super) struct Blueprint {
    pub(super) index: u16,
    pub(super) core: u16,
    pub(super) functions: Vec<Function>,
    pub(super) siblings: Vec<Post<ToShard>>,
    pub(super) supervisor: Post<ToSupervisor>,
    pub(super) mailbox: Mailbox<ToShard>,
    pub(super) mail: Mailbox<ShardMail>,
    pub(super) exchange: Exchange,
    pub(super) balance: Arc<Balance>,
    pub(super) entrance: Entrance,
    pub(super) stats: Arc<Stats>,
    pub(super) http2: Annex,
    pub(super) hosts: Hosts,
    pub(super) doorman: doorman::Annex,
    pub(super) hook: ThreadHook,
}

/// What a shard says once its ring stands.
pub(super) struct Ready {
    pub(super) index: u16,
    pub(super) address: Address,
    /// Whether the thread got its priority.
    pub(super) raised: bool,
}

struct Shard {
    index: u16,
    reactor: Reactor,
    engine: Engine,
    gateway: Gateway,
    portal: Portal,
    remote: Remote,
    uplinks: Uplinks,
    hosts: Hosts,
    http2: Annex,
    role: Role,
    doorman: doorman::Annex,
    priority: Priority,
    balance: Arc<Balance>,
    mail: Mailbox<ShardMail>,
    /// Few, and on the first shard only.
    acceptors: Vec<Acceptor>,
    phase: Phase,
}

/// What an event of the gateway needs at hand, borrowed from a [`Shard`].
struct Parts<'a> {
    gateway: &'a mut Gateway,
    portal: &'a mut Portal,
    reactor: &'a mut Reactor,
    upstream: ShardUpstream<'a>,
}

/// Whether the shard may wait.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Settled {
    Yes,
    No,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Serving,
    /// Nothing new is accepted.
    Draining,
    /// The same, and all is answered.
    Drained,
    Stopped,
}

/// The body of a shard's thread.
pub(super) fn run(
    blueprint: Blueprint,
    config: &Config,
    ready: &Sender<Result<Ready, SetupError>>,
) {
    let Blueprint { index, core, supervisor, .. } = &blueprint;
    let (index, supervisor) = (*index, supervisor.clone());
    (blueprint.hook)(index);
    ipc::rseq::leave();
    if let Err(error) = pin(*core) {
        tracing::warn!("shard {index} cannot be pinned to core {core}: {error}");
    }
    let (priority, raised) = Priority::new(index, config.engine.priority);
    let reactor = match Reactor::new(&reactor::Config::default()) {
        Ok(reactor) => reactor,
        Err(error) => {
            let _ = ready.send(Err(error));
            return;
        }
    };
    let address = reactor.address();
    let mut shard = Shard::new(blueprint, config, reactor, priority);
    // Whoever waits for this has gone only if the whole start failed.
    let _ = ready.send(Ok(Ready { index, address, raised }));
    let report = ReportPanic { shard: index, supervisor: supervisor.clone() };
    if let Err(error) = shard.run() {
        supervisor.send(ToSupervisor::ShardFailed { shard: index, reason: error.to_string() });
    }
    drop(report);
}

/// Tells the supervisor if the thread unwinds.
struct ReportPanic {
    shard: u16,
    supervisor: Post<ToSupervisor>,
}

impl Drop for ReportPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let reason = "it panicked".to_owned();
            self.supervisor.send(ToSupervisor::ShardFailed { shard: self.shard, reason });
        }
    }
}

fn pin(core: u16) -> nix::Result<()> {
    let mut set = CpuSet::new();
    set.set(core.into())?;
    sched_setaffinity(Pid::from_raw(0), &set)
}

impl Shard {
    fn new(
        blueprint: Blueprint,
        config: &Config,
        mut reactor: Reactor,
        priority: Priority,
    ) -> Self {
        let Blueprint {
            index,
            core,
            functions,
            siblings,
            supervisor,
            mailbox,
            mail,
            exchange,
            balance,
            entrance,
            stats,
            http2,
            hosts,
            doorman,
            ..
        } = blueprint;
        let parts = engine::io::Parts {
            shard: index,
            core,
            limits: Limits { depth_max: config.engine.depth_max, ..Limits::default() },
            functions,
            supervisor,
            siblings,
            mailbox,
            exchange,
            stats,
        };
        let engine = Engine::new(parts, &mut reactor);
        let gateway = Gateway::new(entrance.enter(gateway_config(config)), index);
        reactor.poll(mail.bell(), MAIL);
        let (acceptors, phase) = (Vec::new(), Phase::Serving);
        let portal = http2.portal();
        let (remote, uplinks) = (hosts.remote(config, index), hosts.uplinks(config, index));
        Self {
            index,
            reactor,
            engine,
            gateway,
            portal,
            remote,
            uplinks,
            hosts,
            http2,
            role: config.overrides.role,
            doorman,
            priority,
            balance,
            mail,
            acceptors,
            phase,
        }
    }

    fn run(&mut self) -> io::Result<()> {
        let mut events = Vec::new();
        let mut now = clock::now();
        let mut meter = Meter::new(self.index, now);
        loop {
            let settled = self.flush(now);
            let before = meter.before_wait();
            let wait = match self.engine.arm(now) {
                false if settled == Settled::Yes => self.wait(now),
                _ => Wait::Not,
            };
            self.reactor.turn(wait, &mut events)?;
            now = clock::now();
            let measured = meter.waited(&self.balance.loads, before, now);
            for event in events.drain(..) {
                self.handle(now, event);
            }
            self.engine.poll_channels(&mut self.reactor, now);
            self.pass_answers(now);
            self.tick(now);
            self.pass_connections(now);
            self.priority.count(self.engine.calls_live().max(self.gateway.calling()));
            if measured {
                self.priority.adapt(now);
                self.rebalance(now);
            }
            if self.phase == Phase::Draining && self.is_done() {
                self.phase = Phase::Drained;
                self.remote.close(&mut self.reactor, now);
                self.engine.report_drained();
            }
            if self.phase == Phase::Stopped {
                return Ok(());
            }
        }
    }

    /// Until the next timer, or for ever.
    fn wait(&self, now: Nanos) -> Wait {
        let paused = self.acceptors.iter().filter_map(Acceptor::next_timer).min();
        // Nobody tells a draining shard that the last connection has arrived somewhere else.
        let passage = self.phase == Phase::Draining && !self.balance.passage.is_empty();
        let passage = passage.then(|| clock::now() + PASSAGE_TIME);
        let links = [self.remote.next_timer(), self.uplinks.next_timer(&self.engine, now)];
        let timers = [self.engine.next_timer(), self.gateway.next_timer(), paused, passage];
        let timers = timers.into_iter().chain(links);
        match timers.flatten().min() {
            Some(at) => Wait::Until(at),
            None => Wait::Forever,
        }
    }

    fn handle(&mut self, now: Nanos, event: Event) {
        match event {
            Event::Accepted { token, socket } => self.place(now, token, socket),
            Event::AcceptEnded { token, error } => self.accept_ended(now, token, &error),
            Event::Polled { token: MAIL } => self.read_mail(now),
            event @ (Event::Message { value } | Event::MessageFailed { value, .. })
                if engine::io::owns(Token(value)) =>
            {
                self.engine.on_event(&mut self.reactor, now, event);
            }
            Event::Message { value } => self.receive(now, Message::decode(value)),
            Event::MessageFailed { value, error } => {
                tracing::warn!("shard {} could not reach another one: {error}", self.index);
                match Message::decode(value) {
                    Some(Message::SendAway { .. }) | None => {}
                    connection => self.receive(now, connection),
                }
            }
            event => {
                let token = event.token().unwrap_or(Token(0));
                if engine::io::owns(token) {
                    self.engine.on_event(&mut self.reactor, now, event);
                    while let Some(order) = self.engine.next_order() {
                        self.obey(now, order);
                    }
                } else if remote::owns(token) {
                    self.remote.on_event(&mut self.reactor, now, event);
                } else if uplink::owns(token) {
                    let (engine, reactor) = (&mut self.engine, &mut self.reactor);
                    self.uplinks.on_event(engine, reactor, now, event);
                } else {
                    let Parts { gateway, reactor, mut upstream, .. } = self.parts();
                    gateway.on_event(reactor, now, &mut upstream, event);
                }
                self.pass_answers(now);
            }
        }
    }

    /// Says to other threads and hosts what the turn has brought up.
    fn flush(&mut self, now: Nanos) -> Settled {
        self.uplinks.flush(&mut self.engine, &mut self.reactor, now);
        self.remote.flush(&mut self.reactor, now);
        while let Some(notice) = self.uplinks.next_notice() {
            self.hosts.wire.tell(notice);
        }
        self.engine.settle(&mut self.reactor, now);
        // A link that ended just now has ended its calls: what comes of that goes out in the next turn.
        let settled = self.pass_answers(now);
        self.engine.flush(&mut self.reactor);
        settled
    }

    fn parts(&mut self) -> Parts<'_> {
        let draining = self.phase != Phase::Serving;
        let upstream = ShardUpstream {
            engine: &mut self.engine,
            remote: &mut self.remote,
            hosts: &self.hosts,
            loads: &self.balance.loads,
            http2: &self.http2,
            doorman: &self.doorman,
            role: self.role,
            draining,
        };
        let (gateway, portal) = (&mut self.gateway, &mut self.portal);
        Parts { gateway, portal, reactor: &mut self.reactor, upstream }
    }

    /// Gives answers to whoever asked, until there are none.
    fn pass_answers(&mut self, now: Nanos) -> Settled {
        let mut settled = Settled::Yes;
        loop {
            let (caller, answer) = if let Some((caller, answer)) = self.engine.next_answer() {
                if uplink::owns_caller(caller) {
                    self.uplinks.on_answer(caller, answer);
                    settled = Settled::No;
                    continue;
                }
                let engine::io::Answer { outcome, message, retry_after_s, block, times, .. } =
                    answer;
                (caller.0, Answer { outcome, message, retry_after_s, block, times })
            } else if let Some(answered) = self.remote.next_answer() {
                answered
            } else {
                return settled;
            };
            settled = Settled::No;
            let Parts { gateway, portal, reactor, mut upstream } = self.parts();
            if Portal::owns(caller) {
                portal.on_answer(caller, answer);
            } else {
                gateway.on_answer(reactor, now, &mut upstream, caller, answer);
            }
        }
    }

    fn tick(&mut self, now: Nanos) {
        self.engine.tick(&mut self.reactor, now);
        let Parts { gateway, reactor, mut upstream, .. } = self.parts();
        gateway.on_tick(reactor, now, &mut upstream);
        self.remote.on_tick(&mut self.reactor, now);
        self.uplinks.tick(&mut self.engine, &mut self.reactor, now);
        self.pass_answers(now);
        for acceptor in &mut self.acceptors {
            acceptor.tick(&mut self.reactor, now);
        }
    }

    fn read_mail(&mut self, now: Nanos) {
        self.mail.hush();
        while let Some(mail) = self.mail.take() {
            match mail {
                ShardMail::Serve { listener, door } => self.accept_from(now, listener, door),
                ShardMail::Succession(Succession::Expected) => self.remote.drain(),
                ShardMail::Succession(Succession::Off) if self.phase == Phase::Serving => {
                    self.remote.stay();
                }
                ShardMail::Succession(Succession::Off) => {}
                ShardMail::Arrived(arrival) => {
                    let Parts { gateway, reactor, mut upstream, .. } = self.parts();
                    gateway.adopt_secured(reactor, now, &mut upstream, *arrival);
                    self.balance.passage.arrived();
                }
                ShardMail::Engine(link) => {
                    let NewLink { established, hello } = *link;
                    let joined = self.remote.add_link(&mut self.reactor, now, established, &hello);
                    if let Err(error) = joined {
                        tracing::warn!("engine {} cannot join: {error}", hello.node);
                    }
                    self.balance.passage.arrived();
                }
                ShardMail::Gateway(link) => {
                    let (engine, reactor) = (&mut self.engine, &mut self.reactor);
                    let Dialled { established, identity } = *link;
                    self.uplinks.add(engine, reactor, now, established, identity);
                }
                ShardMail::Portal(mail) => {
                    let Parts { portal, reactor, mut upstream, .. } = self.parts();
                    portal.on_mail(reactor, now, &mut upstream, mail);
                }
            }
        }
    }

    fn obey(&mut self, now: Nanos, order: Order) {
        match order {
            Order::Drain => self.drain(now),
            Order::Stop => self.phase = Phase::Stopped,
        }
    }

    fn drain(&mut self, now: Nanos) {
        if self.phase != Phase::Serving {
            return;
        }
        self.phase = Phase::Draining;
        self.http2.drain();
        self.doorman.drain();
        self.balance.passage.close();
        self.engine.close();
        self.remote.drain();
        self.hosts.wire.stop();
        self.uplinks.drain();
        let Parts { gateway, reactor, mut upstream, .. } = self.parts();
        gateway.drain(reactor, now, &mut upstream);
        self.close_acceptors(now);
        // The first one is told by the supervisor, and the others when no connection comes any more.
        if self.index == 0 && !self.acceptors.iter().any(|open| open.door() == Door::Public) {
            self.engine.tell_siblings(|| ToShard::Drain);
        }
    }

    fn is_done(&self) -> bool {
        self.acceptors.iter().all(Acceptor::is_closed)
            && self.gateway.is_empty()
            && self.portal.is_done()
            && self.remote.is_idle()
            && self.uplinks.is_empty()
            && self.engine.is_alone()
            && self.balance.passage.is_empty()
    }
}

/// The limits of `[gateway]`, whichever protocol they hold for.
pub(super) fn gateway_config(config: &Config) -> gateway::Config {
    // It cannot fail for a limit that exists.
    let (files_max, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((u64::MAX, u64::MAX));
    gateway::Config {
        descriptors: gateway::Descriptors::within(files_max),
        body_max: config.gateway.body_max,
        connections_max: config.gateway.connections_max,
        head_timeout: config.gateway.head_timeout,
        body_timeout: config.gateway.body_timeout,
        idle_timeout: config.gateway.idle_timeout,
        write_timeout: config.gateway.write_timeout,
        documents: match config.admin_listen() {
            Some(_) => gateway::Documents::Apart,
            None => gateway::Documents::Everywhere,
        },
        ..gateway::Config::default()
    }
}
