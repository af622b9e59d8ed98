//! One listening port, or path: who connects gets a task of its own, in a table of bounded size.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::client::Clients;
use super::complaints::Complaints;
use super::engine::Engines;
use super::stats::Stats;
use super::stranger::{Source, Stranger, Stream};
use super::{Shards, Stage};

/// A handshake is a few round trips and a signature: who needs longer is no use.
const HANDSHAKE_TIME: Duration = Duration::from_secs(5);
/// Handshakes at once. A client's takes some 30 KiB, and a burst of many is usual.
const CLIENTS_MAX: usize = 256;
/// The same of engines, which come rarely: one connection for each shard and engine.
const ENGINES_MAX: usize = 64;
/// What drains does not wait longer for handshakes than for an idle connection's next request.
const DRAIN_GRACE: Duration = Duration::from_millis(500);
/// Who has connected when the drain begins, at most: the kernel's own queue is shorter.
const REST_MAX: usize = 4096;
/// After an accept that failed for lack of descriptors or memory: time for some to become free.
const PAUSE: Duration = Duration::from_millis(100);
/// To have a path back from a successor that was killed, with a `PAUSE` between them: the kernel closes
/// what that one had in its own time.
const SETTLE_ATTEMPTS: u32 = 50;
/// While descriptors or memory are out, this is told so often.
const PAUSE_TOLD_EVERY: Duration = Duration::from_secs(10);

/// Who is met here.
#[derive(Clone, Debug)]
pub(super) enum Greeter {
    Client(Arc<Clients>),
    Engine(Arc<Engines>),
}

/// See the module's description.
pub(super) struct Port {
    source: Source,
    desk: Arc<Desk>,
    stage: watch::Receiver<Stage>,
}

/// What the handshakes of a port share.
struct Desk {
    greeter: Greeter,
    shards: Shards,
    stats: Arc<Stats>,
    complaints: Complaints,
}

/// The handshakes of a port that are under way.
struct Handshakes {
    tasks: JoinSet<()>,
    /// Oldest first, some of them ended.
    order: VecDeque<AbortHandle>,
    max: usize,
}

/// Serves all ports until they are told to end.
pub(super) async fn serve_all(ports: Vec<Port>) {
    let mut tasks = JoinSet::new();
    for port in ports {
        tasks.spawn(port.serve());
    }
    while tasks.join_next().await.is_some() {}
}

impl Port {
    pub(super) fn new(
        source: Source,
        greeter: Greeter,
        shards: &Shards,
        stats: &Arc<Stats>,
        stage: watch::Receiver<Stage>,
    ) -> Port {
        let complaints = Complaints::of(greeter.who());
        let (shards, stats) = (shards.clone(), Arc::clone(stats));
        Port { source, desk: Arc::new(Desk { greeter, shards, stats, complaints }), stage }
    }

    async fn serve(self) {
        let Port { mut source, desk, mut stage } = self;
        let mut handshakes = Handshakes::new(desk.greeter.handshakes_max());
        let acceptor = match source.acceptor() {
            Ok(acceptor) => acceptor,
            Err(error) => return tracing::error!("{} cannot connect: {error}", desk.greeter.who()),
        };
        let (mut told, mut seen, mut unsettled) = (None, Stage::Joining, 0);
        loop {
            let now = *stage.borrow_and_update();
            let before = std::mem::replace(&mut seen, now);
            if matches!(now, Stage::Draining | Stage::Stopped) {
                break;
            }
            match now {
                Stage::Serving if before != now => unsettled = SETTLE_ATTEMPTS,
                Stage::Serving => {}
                _ => unsettled = 0,
            }
            if unsettled > 0 {
                unsettled = settle(&mut source, unsettled);
            }
            tokio::select! {
                // In this order: engines dial when the stage has changed already, and one of them that was
                // accepted here all the same would take the place of its own link and of the calls on it.
                biased;
                _ = stage.changed() => {}
                () = sleep(PAUSE), if unsettled > 0 => {}
                accepted = acceptor.accept(), if desk.greeter.is_met(now) => match accepted {
                    Ok(stranger) => handshakes.begin(&desk, stranger),
                    Err(error) => pause(&error, &mut told).await,
                },
            }
        }
        // Whoever had connected before the drain is let in, here or by a successor.
        let is_successors = source.is_successors();
        let listening = source.hide();
        if !is_successors {
            for stranger in acceptor.rest(REST_MAX) {
                handshakes.begin(&desk, stranger);
            }
        }
        drop(listening);
        handshakes.finish(stage).await;
    }
}

/// Gives how many attempts are left.
fn settle(source: &mut Source, attempts: u32) -> u32 {
    match source.settle() {
        Ok(()) => 0,
        Err(error) => {
            if attempts == 1 {
                tracing::error!("engines of this host cannot join, their path is lost: {error}");
            }
            attempts - 1
        }
    }
}

async fn pause(error: &io::Error, told: &mut Option<Instant>) {
    // The peer of one connection was faster than us: that says nothing about the next.
    if error.kind() == io::ErrorKind::ConnectionAborted {
        return;
    }
    if told.is_none_or(|at| at.elapsed() >= PAUSE_TOLD_EVERY) {
        tracing::warn!("accepting pauses: {error}");
        *told = Some(Instant::now());
    }
    sleep(PAUSE).await;
}

impl Handshakes {
    fn new(max: usize) -> Handshakes {
        Handshakes { tasks: JoinSet::new(), order: VecDeque::with_capacity(max), max }
    }

    fn begin(&mut self, desk: &Arc<Desk>, stranger: Stranger) {
        desk.stats.count_started();
        if self.make_room() {
            desk.stats.count_displaced();
        }
        self.spawn(meet(Arc::clone(desk), stranger));
    }

    fn spawn(&mut self, handshake: impl Future<Output = ()> + Send + 'static) {
        self.order.push_back(self.tasks.spawn(handshake));
    }

    /// Ends the oldest one if there are as many as there may be. It is the one that is least likely to
    /// succeed; a limit that keeps newcomers out would be a switch for whoever connects and says nothing.
    fn make_room(&mut self) -> bool {
        while self.tasks.try_join_next().is_some() {}
        if self.order.len() < self.max {
            return false;
        }
        self.order.retain(|handshake| !handshake.is_finished());
        let oldest = (self.order.len() >= self.max).then(|| self.order.pop_front()).flatten();
        oldest.inspect(AbortHandle::abort).is_some()
    }

    /// Gives those that are under way a moment, unless all is to stop.
    async fn finish(mut self, mut stage: watch::Receiver<Stage>) {
        let all = async { while self.tasks.join_next().await.is_some() {} };
        let stopped = stage.wait_for(|stage| *stage == Stage::Stopped);
        tokio::select! {
            _ = timeout(DRAIN_GRACE, all) => {}
            _ = stopped => {}
        }
    }
}

/// One handshake, from the first byte to the shard.
async fn meet(desk: Arc<Desk>, stranger: Stranger) {
    let origin = stranger.origin();
    let met = async {
        if !origin.is_admitted() {
            return Err("it is another user's".to_owned());
        }
        match stranger {
            Stranger::Remote(stream, _) => desk.greet(stream).await,
            Stranger::Neighbour(stream) => desk.greet(stream).await,
        }
    };
    let reason = match timeout(HANDSHAKE_TIME, met).await {
        Ok(Ok(())) => return desk.stats.count_done(),
        Ok(Err(reason)) => reason,
        Err(_) => format!("it took longer than {HANDSHAKE_TIME:?}"),
    };
    desk.stats.count_failed();
    desk.complaints.tell(origin, &reason);
}

impl Desk {
    async fn greet(&self, stream: impl Stream) -> Result<(), String> {
        match &self.greeter {
            Greeter::Client(clients) => clients.meet(stream, &self.shards).await,
            Greeter::Engine(engines) => engines.meet(stream, &self.shards).await,
        }
    }
}

impl Greeter {
    fn who(&self) -> &'static str {
        match self {
            Greeter::Client(_) => "a client",
            Greeter::Engine(_) => "an engine",
        }
    }

    /// Whether such are let in now.
    fn is_met(&self, stage: Stage) -> bool {
        match self {
            Greeter::Client(_) => matches!(stage, Stage::Serving | Stage::Yielding),
            Greeter::Engine(_) => matches!(stage, Stage::Joining | Stage::Serving),
        }
    }

    fn handshakes_max(&self) -> usize {
        match self {
            Greeter::Client(_) => CLIENTS_MAX,
            Greeter::Engine(_) => ENGINES_MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(test);
    }

    #[test]
    fn beyond_the_bound_the_oldest_handshake_gives_way() {
        run(async {
            let mut handshakes = Handshakes::new(3);
            for _ in 0..3 {
                assert!(!handshakes.make_room());
                handshakes.spawn(std::future::pending());
            }
            let oldest: Vec<_> = handshakes.order.iter().cloned().collect();
            assert!(handshakes.make_room());
            handshakes.spawn(async {});
            tokio::task::yield_now().await;
            assert_eq!(oldest.iter().filter(|task| task.is_finished()).count(), 1);
            assert!(oldest[0].is_finished());
            // The fourth has ended by itself, so the fifth displaces nobody.
            assert!(!handshakes.make_room());
            assert_eq!(handshakes.order.len(), 2);
        });
    }
}
