//! `nightcore top`: what the functions of a running stack do, interval by interval.

mod rates;
mod terminal;

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use self::rates::{Activity, Interval, Poll};
use self::terminal::{Screen, Signals, Wake};
use crate::client::{ClientError, Target};
use crate::config;
use crate::listing::Listing;
use crate::table;

const INTERVAL_MIN: Duration = Duration::from_millis(100);
const INTERVAL_MAX: Duration = Duration::from_secs(3_600);

/// Options of `nightcore top`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    /// Which gateway.
    pub target: Target,
    /// Time between two polls, such as 500ms or 2s
    #[arg(short, long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    pub interval: Duration,
    /// Print one interval and end
    #[arg(long)]
    pub once: bool,
    /// Print a line of JSON for each interval instead of a table
    #[arg(long)]
    pub json: bool,
}

/// Where the tables go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Display {
    /// Each takes the place of the one before; keys are read from standard input.
    Screen,
    /// One after the other.
    Stream,
}

impl Display {
    /// A screen if standard input and output are a terminal.
    #[must_use]
    pub fn of_process() -> Display {
        let is_screen = io::stdout().is_terminal() && io::stdin().is_terminal();
        if is_screen { Display::Screen } else { Display::Stream }
    }
}

/// Polls the gateway and writes what happened, until a signal or a key ends it, or the gateway does.
///
/// # Errors
/// When the gateway does not answer as one, at first or later on, or the output fails.
pub fn run(options: &Options, display: Display, out: &mut impl Write) -> Result<(), ClientError> {
    let signals = Signals::block().map_err(|error| system("signals cannot be read", error))?;
    // Before the screen is taken: what is wrong with the gateway mostly shows here.
    let mut before = poll(&options.target)?;
    let screen = match display {
        Display::Screen if !options.once && !options.json => {
            let screen = Screen::open().map_err(ClientError::Output)?;
            screen.draw(&[title(options)]).map_err(ClientError::Output)?;
            Some(screen)
        }
        Display::Screen | Display::Stream => None,
    };
    for count in 0_u64.. {
        let wake = signals.pause(before.at + options.interval, screen.as_ref());
        match wake.map_err(|error| system("the pause between two polls failed", error))? {
            Wake::Quit => break,
            Wake::Due => {}
        }
        let after = poll(&options.target)?;
        let interval = Interval::between(&before, &after);
        let written = match &screen {
            Some(screen) => {
                let mut lines = vec![title(options), String::new()];
                lines.extend(table(&interval.functions));
                screen.draw(&lines)
            }
            None if options.json => write_json(&interval, out),
            None => write_table(&interval, count, out),
        };
        written.map_err(ClientError::Output)?;
        if options.once {
            break;
        }
        before = after;
    }
    Ok(())
}

fn interval(text: &str) -> Result<Duration, String> {
    let range = INTERVAL_MIN..=INTERVAL_MAX;
    let interval = config::parse_duration(text).filter(|interval| range.contains(interval));
    interval.ok_or_else(|| "expected a time such as 500ms or 2s, from 100ms to 1h".to_owned())
}

fn poll(target: &Target) -> Result<Poll, ClientError> {
    let (_, listing) = Listing::fetch(target)?;
    Ok(Poll { at: Instant::now(), listing })
}

fn system(what: &'static str, error: nix::errno::Errno) -> ClientError {
    ClientError::System { what, source: error.into() }
}

fn title(options: &Options) -> String {
    format!("{}  every {:?}  q ends", options.target.url, options.interval)
}

fn write_json(interval: &Interval, out: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer(&mut *out, interval)?;
    writeln!(out)?;
    out.flush()
}

fn write_table(interval: &Interval, count: u64, out: &mut impl Write) -> io::Result<()> {
    if count > 0 {
        writeln!(out)?;
    }
    for line in table(&interval.functions) {
        writeln!(out, "{line}")?;
    }
    out.flush()
}

fn table(functions: &[Activity]) -> Vec<String> {
    const HEADER: [&str; 12] = [
        "NAME", "CALLS/S", "FAILED/S", "QUEUE", "RUN", "WAIT", "WORKERS", "LIMIT", "TAU", "PROC50",
        "PROC99", "DELAY99",
    ];
    let rows: Vec<_> = functions.iter().map(row).collect();
    table::lines(HEADER, &rows, 1)
}

fn row(function: &Activity) -> [String; 12] {
    [
        function.name.clone(),
        table::rate(function.calls_per_second),
        table::rate(function.failures_per_second),
        function.queued.to_string(),
        function.running.to_string(),
        function.waiting.to_string(),
        function.workers.to_string(),
        table::count(function.limit),
        table::hint(function.hint),
        table::time(function.processing_p50_ns),
        table::time(function.processing_p99_ns),
        table::time(function.queue_delay_p99_ns),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::tests::{answer, answer_each};

    /// A list whose only function has had so many calls, all of them short, and all of them failures.
    fn list(calls: u64) -> String {
        let body = format!(
            "{{\"functions\":[{{\"name\":\"nop\",\"state\":\"up\",\"workers\":2,\"idle\":1,\
             \"running\":1,\"waiting\":0,\"queued\":5,\"arrivals\":{calls},\"failed\":{calls},\
             \"limit\":16,\"hint\":0.25,\"processing\":{{\"buckets\":[{calls},0]}},\
             \"queue_delay\":{{\"buckets\":[0,{calls}]}}}}],\"bounds_ns\":[10000]}}"
        );
        answer("200 OK", &body)
    }

    fn options(target: Target, once: bool, json: bool) -> Options {
        Options { target, interval: Duration::from_millis(100), once, json }
    }

    #[test]
    fn one_interval_is_two_polls_and_a_table() {
        let (target, server) = answer_each(vec![list(1_000), list(1_000_000)]);
        let mut out = Vec::new();
        run(&options(target, true, false), Display::Screen, &mut out).unwrap();
        assert_eq!(server.join().unwrap().len(), 2);
        let out = String::from_utf8(out).unwrap();
        let lines: Vec<_> = out.lines().collect();
        let [header, nop] = lines[..] else { panic!("{out}") };
        assert!(header.starts_with("NAME  "), "{out}");
        let cells: Vec<_> = nop.split_whitespace().collect();
        let rate: u64 = cells[1].parse().unwrap();
        assert!((1..=9_990_000).contains(&rate), "{out}");
        assert_eq!((cells[0], cells[2]), ("nop", cells[1]));
        assert_eq!(cells[3..], ["5", "1", "0", "2", "16", "0.25", "5.0us", "9.9us", "10us"]);
    }

    #[test]
    fn json_is_a_line_for_each_interval_until_the_gateway_is_gone() {
        let (target, server) = answer_each(vec![list(0), list(10), list(10)]);
        let mut out = Vec::new();
        let error = run(&options(target, false, true), Display::Stream, &mut out).unwrap_err();
        assert_eq!(error.exit_code(), 3, "{error}");
        server.join().unwrap();
        let out = String::from_utf8(out).unwrap();
        let lines: Vec<serde_json::Value> =
            out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let [first, second] = &lines[..] else { panic!("{out}") };
        let (nop, seconds) = (&first["functions"][0], first["seconds"].as_f64().unwrap());
        assert!(seconds >= 0.1, "{out}");
        assert_eq!(nop["calls_per_second"].as_f64().unwrap(), 10.0 / seconds);
        assert_eq!(nop["processing_p50_ns"], 5_000);
        assert_eq!(second["functions"][0]["calls_per_second"], 0.0);
        assert_eq!(second["functions"][0]["processing_p50_ns"], serde_json::Value::Null);
    }

    #[test]
    fn tables_follow_each_other() {
        let (target, server) = answer_each(vec![list(0), list(0), list(0)]);
        let mut out = Vec::new();
        run(&options(target, false, false), Display::Stream, &mut out).unwrap_err();
        server.join().unwrap();
        let out = String::from_utf8(out).unwrap();
        assert_eq!(out.matches("NAME ").count(), 2, "{out}");
        assert_eq!(out.lines().nth(2), Some(""), "{out}");
    }

    #[test]
    fn the_first_answer_must_be_a_gateways() {
        let (target, _server) = answer_each(vec![answer("404 x", "")]);
        let error = run(&options(target, false, false), Display::Stream, &mut Vec::new());
        assert_eq!(error.unwrap_err().exit_code(), 1);
    }

    #[test]
    fn an_interval_is_neither_too_short_to_poll_in_nor_forgotten() {
        assert_eq!(interval("500ms"), Ok(Duration::from_millis(500)));
        for text in ["99ms", "2h", "1", "s", ""] {
            assert!(interval(text).is_err(), "{text}");
        }
    }
}
