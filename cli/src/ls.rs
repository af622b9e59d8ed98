//! `nightcore ls`: the functions of a running stack and the engines that are joined to it, as tables or as
//! the gateway's own JSON.

use std::io::{self, Write};

use crate::client::{ClientError, Target};
use crate::engines::Engines;
use crate::listing::{Function, Listing};
use crate::table;

/// Longest cause of a death that is shown, in characters; `--json` has all of it.
const DEATH_SIZE_MAX: usize = 60;

/// Options of `nightcore ls`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    /// Which gateway.
    pub target: Target,
    /// Print the gateway's JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

/// Asks the gateway and writes the list to `out`.
///
/// # Errors
/// When the gateway does not answer with a list, or `out` fails.
pub fn run(options: &Options, out: &mut impl Write) -> Result<(), ClientError> {
    let (body, listing) = Listing::fetch(&options.target)?;
    // A host without engines elsewhere shows none.
    let engines = Engines::fetch(&options.target)?.filter(|(_, list)| !list.engines.is_empty());
    let written = match (&engines, options.json) {
        (None, true) => writeln!(out, "{}", body.trim_end()),
        (None, false) => write_table(&listing, out),
        (Some((engines, _)), true) => write_both(&body, engines, out),
        (Some((_, engines)), false) => {
            let own = if listing.functions.is_empty() {
                Ok(())
            } else {
                write_table(&listing, out).and_then(|()| writeln!(out))
            };
            own.and_then(|()| write_engines(engines, out))
        }
    };
    written.and_then(|()| out.flush()).map_err(ClientError::Output)
}

fn write_table(listing: &Listing, out: &mut impl Write) -> io::Result<()> {
    const HEADER: [&str; 15] = [
        "NAME", "STATE", "WORKERS", "IDLE", "RUN", "WAIT", "QUEUE", "LIMIT", "TAU", "CALLS",
        "FAILED", "PROC50", "PROC99", "DELAY99", "RESTARTS",
    ];
    const COLUMNS_OF_TEXT: usize = 2;

    let bounds_ns = &listing.bounds_ns;
    let rows: Vec<_> = listing.functions.iter().map(|function| row(function, bounds_ns)).collect();
    let deaths = listing.functions.iter().map(last_death);
    let deaths = std::iter::once("LAST DEATH".to_owned()).chain(deaths);
    for (line, death) in table::lines(HEADER, &rows, COLUMNS_OF_TEXT).iter().zip(deaths) {
        writeln!(out, "{line}  {death}")?;
    }
    Ok(())
}

/// One object with the members of both documents.
fn write_both(functions: &str, engines: &str, out: &mut impl Write) -> io::Result<()> {
    let mut whole: serde_json::Map<_, _> = serde_json::from_str(functions)?;
    whole.extend(serde_json::from_str::<serde_json::Map<_, _>>(engines)?);
    writeln!(out, "{}", serde_json::Value::from(whole))
}

fn write_engines(engines: &Engines, out: &mut impl Write) -> io::Result<()> {
    let [engines, functions] = engines.tables();
    engines.iter().try_for_each(|line| writeln!(out, "{line}"))?;
    writeln!(out)?;
    functions.iter().try_for_each(|line| writeln!(out, "{line}"))
}

fn row(function: &Function, bounds_ns: &[u64]) -> [String; 15] {
    [
        function.name.clone(),
        function.state.clone(),
        function.workers.to_string(),
        function.idle.to_string(),
        function.running.to_string(),
        function.waiting.to_string(),
        function.queued.to_string(),
        table::count(function.limit),
        table::hint(function.hint),
        function.arrivals.to_string(),
        function.failed.to_string(),
        table::time(function.processing.quantile_ns(bounds_ns, 0.5)),
        table::time(function.processing.quantile_ns(bounds_ns, 0.99)),
        table::time(function.queue_delay.quantile_ns(bounds_ns, 0.99)),
        table::count(function.restarts),
    ]
}

/// On one line, as much as fits.
fn last_death(function: &Function) -> String {
    let Some(death) = &function.last_death else { return "-".to_owned() };
    let plain = |character: char| if character.is_control() { ' ' } else { character };
    let mut text: String = death.message.chars().map(plain).take(DEATH_SIZE_MAX).collect();
    if death.message.chars().count() > DEATH_SIZE_MAX {
        text.push_str("...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::tests::{answer, answer_each};

    const LIST: &str = r#"{"functions":[
        {"name":"nop","state":"up","workers":2,"idle":1,"running":1,"waiting":0,"queued":0,
         "arrivals":123456789,"completed":1,"failed":0,"limit":16,"hint":0.253,
         "processing":{"buckets":[99,1,0]},
         "queue_delay":{"buckets":[0,0,1]},"restarts":2,
         "last_death":{"cause":"signal","message":"was killed by SIGSEGV"}},
        {"name":"markdown","state":"starting","workers":0,"idle":0,"running":0,"waiting":0,
         "queued":3,"arrivals":3,"completed":0,"failed":0}],"bounds_ns":[10000,2500000]}"#;

    const NO_ENGINES: &str = r#"{"engines":[]}"#;
    const ENGINES: &str = r#"{"engines":[
        {"node":"a","instance":"1f","state":"serving","address":"10.0.0.2","connected_s":90,
         "epoch":1,"links":2,"cores":8,"functions":[
          {"name":"nop","version":3,"state":"serving","in_flight":4,"queued":0,"running":4,
           "waiting":0,"room":124,"latency_us":250,"ok":70,"failed":1},
          {"name":"echo","version":1,"state":"full","in_flight":9,"queued":5,"running":4,
           "waiting":1,"room":0,"latency_us":null}]},
        {"node":"b","instance":"2f","state":"draining","epoch":1,"links":1,"cores":2,
         "functions":[]}]}"#;

    /// What comes of these answers, in the order in which they are asked for.
    fn run_with(answers: &[String], json: bool) -> (Result<(), ClientError>, String, Vec<String>) {
        let (target, server) = answer_each(answers.to_vec());
        let mut out = Vec::new();
        let result = run(&Options { target, json }, &mut out);
        (result, String::from_utf8(out).unwrap(), server.join().unwrap())
    }

    fn list(body: &str, json: bool) -> (Result<(), ClientError>, String, Vec<String>) {
        run_with(&[answer("200 OK", body), answer("200 OK", NO_ENGINES)], json)
    }

    #[test]
    fn the_table_is_aligned_and_what_is_not_told_is_a_dash() {
        let (result, out, requests) = list(LIST, false);
        result.unwrap();
        assert!(requests[0].starts_with("GET /v1/functions HTTP/1.1\r\n"), "{requests:?}");
        assert!(requests[1].starts_with("GET /v1/engines HTTP/1.1\r\n"), "{requests:?}");
        assert_eq!(
            out,
            "\
NAME      STATE     WORKERS  IDLE  RUN  WAIT  QUEUE  LIMIT   TAU      CALLS  FAILED  PROC50  PROC99  DELAY99  RESTARTS  LAST DEATH
nop       up              2     1    1     0      0     16  0.25  123456789       0   5.0us    10us    2.5ms         2  was killed by SIGSEGV
markdown  starting        0     0    0     0      3      -     -          3       0       -       -        -         -  -
"
        );
    }

    #[test]
    fn json_is_passed_on_as_the_gateway_gave_it() {
        let (result, out, _) = list(LIST, true);
        result.unwrap();
        assert_eq!(out, format!("{LIST}\n"));
    }

    #[test]
    fn a_gateway_shows_its_engines_and_what_each_has_of_a_function() {
        let answers = [answer("200 OK", r#"{"functions":[]}"#), answer("200 OK", ENGINES)];
        let (result, out, _) = run_with(&answers, false);
        result.unwrap();
        assert_eq!(
            out,
            "\
ENGINE  STATE     ADDRESS   LINKS  CORES  JOINED
a       serving   10.0.0.2      2      8     90s
b       draining  -             1      2       -

FUNCTION  ENGINE  STATE    VERSION  INFLIGHT  RUN  WAIT  QUEUE  ROOM  OK  FAILED  LATENCY
echo      a       full           1         9    4     1      5     0   0       0        -
nop       a       serving        3         4    4     0      0   124  70       1    250us
"
        );
        let (result, out, _) = run_with(&answers, true);
        result.unwrap();
        let whole: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(whole["functions"], serde_json::json!([]));
        assert_eq!(whole["engines"][0]["node"], "a");
    }

    #[test]
    fn an_older_gateway_that_knows_no_engines_has_none() {
        let answers = [answer("200 OK", LIST), answer("404 Not Found", "{}")];
        let (result, out, _) = run_with(&answers, true);
        result.unwrap();
        assert_eq!(out, format!("{LIST}\n"));
    }

    #[test]
    fn another_server_is_told_from_a_gateway() {
        let (result, out, _) = run_with(&[answer("200 OK", "hi")], true);
        let error = result.unwrap_err();
        assert_eq!((error.exit_code(), out.as_str()), (3, ""));
        assert!(error.to_string().contains("not the answer of a gateway"), "{error}");
    }

    #[test]
    fn an_error_status_is_a_failure() {
        let (result, _, _) = run_with(&[answer("503 x", "")], false);
        let error = result.unwrap_err();
        assert_eq!(error.exit_code(), 1);
        assert!(error.to_string().ends_with("503 Service Unavailable"), "{error}");
    }
}
