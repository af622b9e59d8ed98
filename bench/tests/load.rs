//! The load generator against servers that misbehave in ways a target might.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use nightcore_bench::load::{Also, Error, Errors, Keep, Pace, Plan, Report, run, run_until};

const MS: Duration = Duration::from_millis(1);
const STALL: Duration = Duration::from_millis(300);
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// What a server does with a request.
enum Reply {
    Send(&'static str),
    /// Sends, then closes.
    Last(&'static str),
    /// Waits until the client gives up.
    Nothing,
}

type Answering = fn() -> Reply;

/// Answers on every connection by `reply`, which is given the number of the request among all of
/// them. Its threads end with the test's process.
fn serve(reply: impl Fn(usize) -> Reply + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let (reply, count) = (Arc::new(reply), Arc::new(AtomicUsize::new(0)));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (reply, count) = (Arc::clone(&reply), Arc::clone(&count));
            std::thread::spawn(move || {
                answer(&stream.expect("descriptors are left"), || {
                    reply(count.fetch_add(1, Ordering::Relaxed))
                });
            });
        }
    });
    address
}

fn answer(mut stream: &TcpStream, reply: impl Fn() -> Reply) {
    stream.set_nodelay(true).expect("a socket");
    for line in BufReader::new(stream).lines() {
        match line {
            Ok(line) if !line.is_empty() => continue,
            Ok(_) => {}
            Err(_) => return,
        }
        let sent = match reply() {
            Reply::Send(bytes) => stream.write_all(bytes.as_bytes()),
            Reply::Last(bytes) => {
                let _ = stream.write_all(bytes.as_bytes());
                return;
            }
            Reply::Nothing => Ok(()),
        };
        if sent.is_err() {
            return;
        }
    }
}

fn plan(address: SocketAddr, pace: Pace) -> Plan {
    Plan {
        target: format!("http://{address}/").parse().expect("a URL"),
        method: "GET".to_owned(),
        headers: Vec::new(),
        body: Vec::new(),
        also: Vec::new(),
        connections: 4,
        pace,
        duration: 500 * MS,
        warm_up: Duration::ZERO,
        timeout: Duration::from_secs(20),
        threads: 1,
        keep: Keep::Sums,
    }
}

fn report(plan: &Plan) -> Report {
    run(plan, &mut |_| {}).expect("the target listens")
}

/// Whether the errors are of that one kind.
fn only(errors: &Errors, kind: &str) -> bool {
    errors.named().iter().all(|&(name, count)| (count > 0) == (name == kind))
}

/// A server that answers at once, and once, at its 100th request, keeps everybody waiting.
fn stalling_server() -> SocketAddr {
    let door = std::sync::RwLock::new(());
    serve(move |request| {
        if request == 100 {
            let _closed = door.write().expect("nobody panics");
            std::thread::sleep(STALL);
        }
        let _open = door.read().expect("nobody panics");
        Reply::Send(OK)
    })
}

#[test]
fn a_stall_shows_in_the_p99_at_a_constant_rate_and_not_in_a_closed_loop() {
    let mut closed = plan(stalling_server(), Pace::Closed);
    closed.duration = 3 * STALL;
    let closed = report(&closed);
    let mut open = plan(stalling_server(), Pace::Constant { per_second: 400.0 });
    open.duration = 3 * STALL;
    let open = report(&open);
    let half_stall = u64::try_from((STALL / 2).as_nanos()).unwrap();
    for report in [&closed, &open] {
        assert_eq!(report.errors, Errors::default());
        assert!(report.times.max() >= half_stall, "{report}");
    }
    assert!(closed.times.value_at_quantile(0.99) < half_stall, "{closed}");
    assert!(open.times.value_at_quantile(0.99) >= half_stall, "{open}");
}

#[test]
fn a_step_sends_at_one_rate_and_then_at_the_other_and_the_log_has_every_request() {
    let address = serve(|_| Reply::Send(OK));
    let pace = Pace::Step { before: 200.0, at: 250 * MS, after: 1000.0 };
    let mut plan = plan(address, pace);
    (plan.warm_up, plan.keep) = (100 * MS, Keep::EveryRequest);
    let report = report(&plan);
    assert_eq!(report.errors, Errors::default());
    assert_eq!(report.log.len() as u64, report.requests);
    let before = report.log.iter().filter(|entry| entry.due < 250 * MS).count();
    let after = report.log.len() - before;
    assert_eq!(before, 50);
    assert_eq!(after as u64 + report.unsent, 250, "{report}");
    assert!(report.log.iter().all(|entry| entry.status == Some(200) && entry.request == 0));
}

#[test]
fn requests_of_a_mix_take_turns_on_every_connection() {
    let address = serve(|_| Reply::Send(OK));
    for pace in [Pace::Closed, Pace::Constant { per_second: 1000.0 }] {
        let mut plan = plan(address, pace);
        plan.also = vec![Also { path: "/other".to_owned(), body: b"x".to_vec() }];
        (plan.method, plan.keep) = ("POST".to_owned(), Keep::EveryRequest);
        plan.body = b"y".to_vec();
        let report = report(&plan);
        let other = report.log.iter().filter(|entry| entry.request == 1).count();
        // Each of the four connections may have begun or ended with either.
        let own = report.log.len() - other;
        assert!(own > 100 && own.abs_diff(other) <= 4, "{own} and {other}: {report}");
    }
}

#[test]
fn answers_that_are_no_success_are_counted_by_status() {
    let address = serve(|request| {
        Reply::Send(match request % 2 {
            0 => "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
            _ => "HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n",
        })
    });
    let report = report(&plan(address, Pace::Constant { per_second: 1000.0 }));
    assert!(only(&report.errors, "status"), "{report}");
    assert_eq!(report.statuses.keys().copied().collect::<Vec<_>>(), [429, 503]);
    assert_eq!(report.statuses.values().sum::<u64>(), report.errors.status);
}

#[test]
fn a_constant_rate_sends_every_request_of_the_schedule() {
    let address = serve(|_| Reply::Send(OK));
    let mut plan = plan(address, Pace::Constant { per_second: 1000.0 });
    (plan.threads, plan.connections, plan.warm_up) = (2, 5, 100 * MS);
    let report = report(&plan);
    assert_eq!(report.errors, Errors::default());
    assert_eq!(report.requests + report.unsent, 500, "{report}");
    assert_eq!(report.late.len(), report.requests);
}

#[test]
fn a_rate_beyond_reach_ends_in_time_and_says_what_was_not_sent() {
    let address = serve(|_| Reply::Send(OK));
    let report = report(&plan(address, Pace::Constant { per_second: 1e8 }));
    assert_eq!(report.errors, Errors::default());
    assert_eq!(report.requests + report.unsent, 50_000_000, "{report}");
}

#[test]
fn chunked_and_closing_answers_are_answers() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n";
    let report_chunked = report(&plan(serve(move |_| Reply::Send(chunked)), Pace::Closed));
    assert_eq!(report_chunked.errors, Errors::default());
    assert_eq!(report_chunked.reconnects, 0);

    let closing = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end";
    let pace = Pace::Constant { per_second: 100.0 };
    let report_closing = report(&plan(serve(move |_| Reply::Last(closing)), pace));
    assert_eq!(report_closing.errors, Errors::default());
    assert!(report_closing.reconnects >= report_closing.requests - 4, "{report_closing}");
}

#[test]
fn every_failure_is_counted_as_what_it_is() {
    let pace = Pace::Constant { per_second: 100.0 };
    let cases: [(&str, Answering); 4] = [
        ("status", || Reply::Send("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")),
        ("short", || Reply::Last("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfew")),
        ("malformed", || Reply::Send("+PONG\r\n")),
        ("malformed", || Reply::Send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\ntoo many")),
    ];
    for (kind, reply) in cases {
        let report = report(&plan(serve(move |_| reply()), pace));
        assert!(only(&report.errors, kind), "{kind}: {:?}", report.errors);
        assert_eq!(report.errors.total() + report.unsent, 50, "{report}");
        assert!(report.times.is_empty());
    }
}

#[test]
fn an_answer_that_never_comes_is_a_timeout() {
    let mut plan = plan(serve(|_| Reply::Nothing), Pace::Closed);
    (plan.timeout, plan.duration) = (100 * MS, 300 * MS);
    let report = report(&plan);
    assert!(only(&report.errors, "timeout"), "{:?}", report.errors);
}

#[test]
fn a_target_that_nobody_serves_is_unreachable() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = run(&plan(address, Pace::Closed), &mut |_| {}).unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
}

#[test]
fn more_connections_than_descriptors_are_refused() {
    let mut plan = plan(serve(|_| Reply::Send(OK)), Pace::Closed);
    plan.connections = u32::MAX;
    let error = run(&plan, &mut |_| {}).unwrap_err();
    assert!(matches!(error, Error::Descriptors { needed, .. } if needed > 1 << 32), "{error}");
}

#[test]
fn a_stopped_run_reports_what_it_has_seen() {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    let address = serve(move |request| {
        flag.fetch_or(request == 100, Ordering::Relaxed);
        Reply::Send(OK)
    });
    for pace in [Pace::Closed, Pace::Constant { per_second: 1000.0 }] {
        let mut plan = plan(address, pace);
        plan.duration = Duration::from_secs(3600);
        let report = run_until(&plan, &stop, &mut |_| {}).expect("the target listens");
        assert_eq!(report.errors, Errors::default());
        assert!(report.elapsed < plan.duration);
    }
}

#[test]
fn seconds_are_told_while_they_pass() {
    let mut plan = plan(serve(|_| Reply::Send(OK)), Pace::Constant { per_second: 100.0 });
    (plan.duration, plan.threads) = (2000 * MS, 2);
    let mut seconds = Vec::new();
    let report = run(&plan, &mut |progress| seconds.push(progress.clone())).unwrap();
    let elapsed: Vec<u64> = seconds.iter().map(|second| second.elapsed.as_secs()).collect();
    assert!(elapsed.is_sorted() && elapsed.first() == Some(&1), "{elapsed:?}");
    let requests: u64 = seconds.iter().map(|second| second.requests).sum();
    assert!(requests <= report.requests, "{requests} of {}", report.requests);
}
