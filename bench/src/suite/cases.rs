//! What a run measures, as data: groups of cases that are compared with each other.
//!
//! Names are stable, since results are compared across versions. A case in another placement than
//! the plain one (free, one thread a process) is called `case@placement`.

/// Cases that run next to each other, on targets started for them.
#[derive(Clone, Debug)]
pub struct Group {
    /// Times a round runs through the cases: short ones are sampled several times.
    pub repeats: u32,
    /// In the order of odd rounds; even ones reverse it.
    pub cases: Vec<Case>,
}

/// One measurement.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its name in the results.
    pub name: String,
    /// What is measured.
    pub target: Target,
    /// How.
    pub job: Job,
    /// In which runs.
    pub when: When,
}

/// In which runs and rounds a case is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum When {
    /// In every round of every run.
    Always,
    /// In the first round of a quick run, in every round of a full one.
    QuickOnce,
    /// In full runs only.
    Full,
}

/// What runs while it is measured.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// Nothing: the job brings its own processes.
    Nothing,
    /// This runtime, serving these functions, in its default configuration.
    Nightcore(Functions),
    /// nginx that answers by itself.
    Nginx(Placement),
    /// nginx that proxies to another one.
    NginxProxy(Placement),
    /// `peer hyper` alone.
    Hyper(Placement),
    /// A front with a backend process.
    Rpc(Rpc, Placement),
    /// Cloudflare's runtime.
    Workerd,
}

/// The functions that are deployed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Functions {
    /// Those of `examples/nightcore.toml`.
    Examples,
    /// `libnop.so` under so many names: `nop`, `nop2` and so on.
    Nops(u32),
    /// One `nop` with exactly so many workers.
    Workers(u32),
}

/// How front and backend talk.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rpc {
    /// gRPC over a unix socket.
    TonicUnix,
    /// gRPC over TCP.
    TonicTcp,
    /// HTTP/1.1 over TCP.
    Hyper,
}

/// Where a target's processes run, and with how many threads each.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Placement {
    /// Wherever the kernel puts them, one thread a process.
    Free,
    /// The same with two threads a process.
    TwoThreads,
    /// All on the first core.
    OneCore,
    /// Each process on a core of its own.
    CoreEach,
}

/// How a case is measured.
#[derive(Clone, Debug, PartialEq)]
pub enum Job {
    /// Requests over HTTP.
    Load(Load),
    /// Internal calls, timed by the function `chain` that makes them.
    Internal {
        /// Bytes a call.
        size: u32,
        /// Percent of the capacity of chains, offered at the same time.
        background_percent: Option<u32>,
    },
    /// System calls per request under this load, in a run that is not timed.
    Syscalls(Load),
    /// CPU time while nobody calls.
    Idle,
    /// Private memory of idle containers.
    Memory,
    /// A program that prints samples.
    Tool(Tool),
}

/// A load over HTTP/1.1 with kept connections.
#[derive(Clone, Debug, PartialEq)]
pub struct Load {
    /// The function that is called.
    pub function: &'static str,
    /// The body of every request.
    pub body: String,
    /// Connections.
    pub connections: u32,
    /// When requests are sent.
    pub pace: Pace,
    /// What one request counts for: 1, or the internal calls it makes where those are the case.
    pub operations: Operations,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Operations {
    /// Requests, with their latency.
    Requests,
    /// The internal calls that each request makes, without latency.
    Calls(u32),
}

/// When requests are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// As soon as the last answer is there.
    Closed,
    /// At a constant rate, requests a second.
    Rate(f64),
    /// At a share of what this case reached.
    Share {
        /// The case.
        of: &'static str,
        /// Percent of its requests a second.
        percent: u32,
    },
}

/// Programs that measure something by themselves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Tool {
    /// What the machine can do, all of it.
    Limits,
    /// Its round trip by eventfds alone.
    Eventfd,
    /// Our bare channel, all of it.
    Channel,
    /// Its round trip of 1 KiB on one core.
    ChannelRtt,
    /// A request-response ping-pong of iceoryx2, with events on one core.
    IceoryxEvent,
    /// The same, both sides polling on cores of their own.
    IceoryxBusy,
}

const NOP_CONNECTIONS: [(u32, When); 6] = [
    (1, When::Always),
    (16, When::Full),
    (64, When::Always),
    (256, When::Full),
    (1024, When::QuickOnce),
    (4096, When::Full),
];
const DEPTHS: [u32; 6] = [1, 2, 5, 10, 20, 50];
const WIDTHS: [u32; 6] = [1, 2, 5, 10, 20, 40];
const LOADS_PERCENT: [u32; 9] = [10, 20, 30, 40, 50, 60, 70, 80, 90];
const WORKERS: [u32; 5] = [1, 4, 16, 64, 256];
/// Internal calls of one request where calls are counted: HTTP costs about one of them, and short
/// loads still end with whole requests.
const CALLS_A_REQUEST: u32 = 200;
/// Deployed while the idle CPU and the memory of containers are measured.
const IDLE_FUNCTIONS: u32 = 20;
const EXAMPLES: Target = Target::Nightcore(Functions::Examples);

/// Everything there is to measure.
#[must_use]
pub fn all() -> Vec<Group> {
    let mut groups = vec![internal(), channel()];
    groups.extend(nop());
    groups.extend(calls());
    groups.extend(growth());
    groups.extend(rest());
    groups
}

fn group(cases: Vec<Case>) -> Group {
    Group { repeats: 1, cases }
}

fn case(name: impl Into<String>, target: Target, job: Job, when: When) -> Case {
    Case { name: name.into(), target, job, when }
}

fn tool(name: &str, tool: Tool, when: When) -> Case {
    case(name, Target::Nothing, Job::Tool(tool), when)
}

fn load(function: &'static str, body: String, connections: u32, pace: Pace) -> Job {
    let operations = Operations::Requests;
    Job::Load(Load { function, body, connections, pace, operations })
}

fn nops(connections: u32) -> Job {
    load("nop", String::new(), connections, Pace::Closed)
}

fn body(n: u32, size: u32) -> String {
    format!(r#"{{"n":{n},"size":{size}}}"#)
}

/// A call, next to what two wake-ups cost here and now.
fn internal() -> Group {
    let call = |name: &str, size| {
        let job = Job::Internal { size, background_percent: None };
        case(name, EXAMPLES, job, When::Always)
    };
    let eventfd = tool("limits/eventfd_same_core", Tool::Eventfd, When::Always);
    let cases = vec![
        eventfd,
        call("internal_1k", 1 << 10),
        call("internal_64k", 64 << 10),
        call("internal_32", 32),
    ];
    Group { repeats: 5, cases }
}

fn channel() -> Group {
    group(vec![
        tool("channel/rtt_same_core_1024", Tool::ChannelRtt, When::Always),
        tool("iceoryx2_event", Tool::IceoryxEvent, When::Always),
        tool("iceoryx2_busy", Tool::IceoryxBusy, When::QuickOnce),
    ])
}

/// One request over HTTP that does nothing, beside what answers it otherwise.
fn nop() -> Vec<Group> {
    let alone = NOP_CONNECTIONS.iter().filter(|(connections, _)| ![1, 64].contains(connections));
    let alone = alone.map(|&(connections, when)| {
        case(format!("nop_c{connections}"), EXAMPLES, nops(connections), when)
    });
    let sweep = LOADS_PERCENT.map(|percent| {
        let pace = Pace::Share { of: "nop_c64", percent };
        let job = load("nop", String::new(), 64, pace);
        case(format!("nop_load{percent}"), EXAMPLES, job, When::QuickOnce)
    });
    vec![nop_beside(1), nop_beside(64), group(alone.collect()), group(sweep.into())]
}

fn nop_beside(connections: u32) -> Group {
    use Placement::{CoreEach, Free, OneCore, TwoThreads};
    let job = nops(connections);
    let peer = |name: &str, target: fn(Placement) -> Target, others: &[Placement]| {
        placed(&format!("{name}_c{connections}"), target, &job, &[Free], others)
    };
    let mut cases = peer("nginx", Target::Nginx, &[OneCore]);
    cases.push(case(format!("nop_c{connections}"), EXAMPLES, job.clone(), When::Always));
    cases.extend(peer("nginx_proxy", Target::NginxProxy, &[OneCore, CoreEach]));
    cases.extend(peer("hyper_nop", Target::Hyper, &[OneCore, TwoThreads]));
    let workerd = format!("workerd_nop_c{connections}");
    cases.push(case(workerd, Target::Workerd, job.clone(), When::QuickOnce));
    group(cases)
}

/// The same case in several placements; `quick` lists those that quick runs measure too.
fn placed(
    name: &str,
    target: impl Fn(Placement) -> Target,
    job: &Job,
    quick: &[Placement],
    others: &[Placement],
) -> Vec<Case> {
    let quick = quick.iter().map(|&placement| (placement, When::Always));
    let others = others.iter().map(|&placement| (placement, When::Full));
    quick
        .chain(others)
        .map(|(placement, when)| {
            let name = format!("{name}{}", placement.suffix());
            case(name, target(placement), job.clone(), when)
        })
        .collect()
}

/// Requests that make ten calls, beside two processes that talk otherwise.
fn calls() -> Vec<Group> {
    use Placement::{CoreEach, Free, OneCore, TwoThreads};
    let beside = |name: &str, job: Job, idle: bool| {
        let mut cases = vec![case(name, EXAMPLES, job.clone(), When::Always)];
        for (peer, rpc) in PEERS {
            // At idle, one core saves the wake-up of another; hyper gains from a second thread.
            let quick: &[Placement] = match (rpc, idle) {
                (Rpc::Hyper, false) => &[TwoThreads],
                (Rpc::Hyper, true) => &[TwoThreads, OneCore],
                (Rpc::TonicTcp, true) => &[OneCore],
                (Rpc::TonicUnix, true) => &[Free, OneCore],
                (_, false) => &[Free],
            };
            let others: Vec<Placement> = [Free, TwoThreads, OneCore, CoreEach]
                .into_iter()
                .filter(|placement| !quick.contains(placement))
                .collect();
            let name = format!("{peer}_{name}");
            cases.extend(placed(&name, |at| Target::Rpc(rpc, at), &job, quick, &others));
        }
        group(cases)
    };
    let ten = |function, connections, pace| load(function, body(10, 1024), connections, pace);
    vec![
        beside("chain10_c64", ten("chain", 64, Pace::Closed), false),
        beside("chain10_r2000", ten("chain", 64, Pace::Rate(2000.0)), false),
        beside("chain10_c1", ten("chain", 1, Pace::Closed), true),
        beside("fanout10_c1", ten("fanout", 1, Pace::Closed), true),
        busy_calls(),
    ]
}

const PEERS: [(&str, Rpc); 3] =
    [("tonic_uds", Rpc::TonicUnix), ("tonic_tcp", Rpc::TonicTcp), ("hyper_h1", Rpc::Hyper)];

/// Internal calls while others are made.
fn busy_calls() -> Group {
    let under = |percent| {
        let job = Job::Internal { size: 1024, background_percent: Some(percent) };
        case(format!("internal_1k_load{percent}"), EXAMPLES, job, When::Always)
    };
    let sixteen = Load {
        function: "chain",
        body: body(CALLS_A_REQUEST, 1024),
        connections: 16,
        pace: Pace::Closed,
        operations: Operations::Calls(CALLS_A_REQUEST),
    };
    let sixteen = case("internal_calls_c16", EXAMPLES, Job::Load(sixteen), When::Always);
    group(vec![under(50), under(80), sixteen])
}

/// What gets slower as there is more of it.
fn growth() -> Vec<Group> {
    let sweep = |prefix: &str, function, values: [u32; 6]| {
        let cases = values.map(|n| {
            let job = load(function, body(n, 1024), 1, Pace::Closed);
            case(format!("{prefix}{n}"), EXAMPLES, job, When::QuickOnce)
        });
        group(cases.into())
    };
    let functions = [1, 10, 100, 1000].map(|count| {
        let target = Target::Nightcore(Functions::Nops(count));
        let when = if [1, 1000].contains(&count) { When::Always } else { When::Full };
        case(format!("functions_{count}"), target, nops(1), when)
    });
    let workers = WORKERS.map(|count| {
        let target = Target::Nightcore(Functions::Workers(count));
        case(format!("workers_{count}"), target, nops(64), When::Full)
    });
    vec![
        group(functions.into()),
        group(workers.into()),
        sweep("chain_depth_", "chain", DEPTHS),
        sweep("fanout_width_", "fanout", WIDTHS),
    ]
}

/// What it costs to be there, how often the kernel is asked, and what the machine can do.
fn rest() -> Vec<Group> {
    let idle = Target::Nightcore(Functions::Nops(IDLE_FUNCTIONS));
    let syscalls = |name: &str, job: Job| {
        let Job::Load(load) = job else { return None };
        Some(case(name, EXAMPLES, Job::Syscalls(load), When::QuickOnce))
    };
    let ten = load("chain", body(10, 1024), 64, Pace::Closed);
    let syscalls = [syscalls("syscalls_nop_c64", nops(64)), syscalls("syscalls_chain10_c64", ten)];
    vec![
        group(vec![
            case("idle_cpu_percent", idle.clone(), Job::Idle, When::Always),
            case("memory", idle, Job::Memory, When::Always),
        ]),
        group(syscalls.into_iter().flatten().collect()),
        group(vec![
            tool("limits", Tool::Limits, When::QuickOnce),
            tool("channel", Tool::Channel, When::Full),
        ]),
    ]
}

impl Placement {
    fn suffix(self) -> &'static str {
        match self {
            Placement::Free => "",
            Placement::TwoThreads => "@two_threads",
            Placement::OneCore => "@one_core",
            Placement::CoreEach => "@core_each",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::report::bars::RATIOS;

    fn names(wanted: impl Fn(&Case) -> bool) -> Vec<String> {
        let cases = all().into_iter().flat_map(|group| group.cases);
        cases.filter(wanted).map(|case| case.name).collect()
    }

    #[test]
    fn every_case_has_a_name_of_its_own() {
        let names = names(|_| true);
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{names:?}");
    }

    #[test]
    fn every_round_of_a_quick_run_measures_both_sides_of_every_bar() {
        let names = names(|case| case.when == When::Always);
        let is_measured =
            |case: &str| names.iter().any(|name| name.split('@').next() == Some(case));
        for ratio in RATIOS.iter().filter(|ratio| ratio.bar.is_some()) {
            for side in [Some(ratio.of), ratio.over].into_iter().flatten() {
                assert!(is_measured(side.case), "{} of {}", side.case, ratio.name);
            }
        }
    }

    #[test]
    fn every_ratio_names_cases_that_exist() {
        let names = names(|_| true);
        for ratio in RATIOS {
            for side in [Some(ratio.of), ratio.over].into_iter().flatten() {
                let exists = names.iter().any(|name| name.split('@').next() == Some(side.case));
                assert!(exists, "{} of {}", side.case, ratio.name);
            }
        }
    }

    #[test]
    fn a_share_is_that_of_a_case_measured_before() {
        let mut seen = BTreeSet::new();
        for group in all() {
            for case in &group.cases {
                if let Job::Load(Load { pace: Pace::Share { of, .. }, .. }) = &case.job {
                    assert!(seen.contains(*of), "{of} of {}", case.name);
                }
            }
            seen.extend(group.cases.into_iter().map(|case| case.name));
        }
    }
}
