//! `nightcore ls`: the functions of a running stack, as a table or as the gateway's own JSON.

use std::io::{self, Write};

use serde::Deserialize;

use crate::client::{self, ClientError, PARSED_SIZE_MAX, Target};

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

/// The answer of `/v1/functions`. Fields that a newer gateway adds are passed over.
#[derive(Deserialize)]
struct Functions {
    functions: Vec<Function>,
}

#[derive(Deserialize)]
struct Function {
    name: String,
    state: String,
    workers: u64,
    idle: u64,
    running: u64,
    waiting: u64,
    queued: u64,
    arrivals: u64,
    failed: u64,
}

/// Asks the gateway and writes the list to `out`.
pub fn run(options: &Options, out: &mut impl Write) -> Result<(), ClientError> {
    let url = format!("{}/v1/functions", options.target.url);
    let no_answer = |source| ClientError::NoAnswer { url: url.clone(), source };
    let response = client::agent().get(&url).call().map_err(no_answer)?;
    let status = response.status();
    let body = response.into_body().into_with_config().limit(PARSED_SIZE_MAX);
    let body = body.read_to_string().map_err(no_answer)?;
    if !status.is_success() {
        return Err(ClientError::Failed { subject: url, failure: status.to_string() });
    }
    let odd = |error: serde_json::Error| ClientError::OddAnswer {
        url: url.clone(),
        reason: error.to_string(),
    };
    let list: Functions = serde_json::from_str(&body).map_err(odd)?;
    let written = if options.json {
        writeln!(out, "{}", body.trim_end())
    } else {
        write_table(&list.functions, out)
    };
    written.and_then(|()| out.flush()).map_err(ClientError::Output)
}

/// Names to the left, numbers to the right, as wide as the widest cell.
fn write_table(functions: &[Function], out: &mut impl Write) -> io::Result<()> {
    const HEADER: [&str; 9] =
        ["NAME", "STATE", "WORKERS", "IDLE", "RUNNING", "WAITING", "QUEUED", "CALLS", "FAILURES"];
    const COLUMNS_OF_TEXT: usize = 2;

    let mut rows = vec![HEADER.map(str::to_owned)];
    rows.extend(functions.iter().map(row));
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: [usize; HEADER.len()] = std::array::from_fn(width);
    for row in &rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            let cell = if column < COLUMNS_OF_TEXT {
                format!("{cell:<width$}")
            } else {
                format!("{cell:>width$}")
            };
            line.push_str(if column == 0 { "" } else { "  " });
            line.push_str(&cell);
        }
        writeln!(out, "{line}")?;
    }
    Ok(())
}

fn row(function: &Function) -> [String; 9] {
    [
        function.name.clone(),
        function.state.clone(),
        function.workers.to_string(),
        function.idle.to_string(),
        function.running.to_string(),
        function.waiting.to_string(),
        function.queued.to_string(),
        function.arrivals.to_string(),
        function.failed.to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::tests::{answer, answer_once};

    const LIST: &str = r#"{"functions":[
        {"name":"nop","state":"up","workers":2,"idle":1,"running":1,"waiting":0,"queued":0,
         "arrivals":123456789,"completed":1,"failed":0},
        {"name":"markdown","state":"starting","workers":0,"idle":0,"running":0,"waiting":0,
         "queued":3,"arrivals":3,"completed":0,"failed":0}]}"#;

    fn list(status: &str, body: &str, json: bool) -> (Result<(), ClientError>, String, String) {
        let (target, server) = answer_once(answer(status, body));
        let mut out = Vec::new();
        let result = run(&Options { target, json }, &mut out);
        (result, String::from_utf8(out).unwrap(), server.join().unwrap())
    }

    #[test]
    fn the_table_is_aligned() {
        let (result, out, request) = list("200 OK", LIST, false);
        result.unwrap();
        assert!(request.starts_with("GET /v1/functions HTTP/1.1\r\n"), "{request}");
        assert_eq!(
            out,
            "\
NAME      STATE     WORKERS  IDLE  RUNNING  WAITING  QUEUED      CALLS  FAILURES
nop       up              2     1        1        0       0  123456789         0
markdown  starting        0     0        0        0       3          3         0
"
        );
    }

    #[test]
    fn json_is_passed_on_as_the_gateway_gave_it() {
        let (result, out, _) = list("200 OK", LIST, true);
        result.unwrap();
        assert_eq!(out, format!("{LIST}\n"));
    }

    #[test]
    fn another_server_is_told_from_a_gateway() {
        let (result, out, _) = list("200 OK", "hi", true);
        let error = result.unwrap_err();
        assert_eq!((error.exit_code(), out.as_str()), (3, ""));
        assert!(error.to_string().contains("not the answer of a gateway"), "{error}");
    }

    #[test]
    fn an_error_status_is_a_failure() {
        let (result, _, _) = list("503 x", "", false);
        let error = result.unwrap_err();
        assert_eq!(error.exit_code(), 1);
        assert!(error.to_string().ends_with("503 Service Unavailable"), "{error}");
    }
}
