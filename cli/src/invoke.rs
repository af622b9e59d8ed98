//! `nightcore invoke`: calls one function over HTTP and passes its answer on unchanged.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use ureq::Body;
use ureq::http::Response;

use crate::client::{self, ClientError, PARSED_SIZE_MAX, Target};
use crate::config;

/// Header by which a caller shortens the function's own time limit.
const TIMEOUT_HEADER: &str = "x-nightcore-timeout-ms";
/// How long an answer may take beyond the call's time limit before the client gives up.
const ANSWER_GRACE: Duration = Duration::from_secs(5);

/// Options of `nightcore invoke`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Name of the function
    #[arg(value_parser = function_name)]
    pub name: String,
    /// Data to send
    #[arg(short, long, value_name = "DATA", conflicts_with = "data_file")]
    pub data: Option<String>,
    /// File whose contents to send; "-" is standard input
    #[arg(long, value_name = "FILE")]
    pub data_file: Option<PathBuf>,
    #[command(flatten)]
    /// Which gateway.
    pub target: Target,
    /// Time limit of the call, if shorter than the function's own
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=86_400_000))]
    pub timeout_ms: Option<u64>,
    /// Show status and headers before the body
    #[arg(short, long)]
    pub include: bool,
}

/// The body of the gateway's error answers.
#[derive(Deserialize)]
struct ErrorBody {
    error: String,
    message: String,
    request_id: String,
}

/// Calls the function and writes its answer to `out`.
pub fn run(options: &Options, out: &mut impl Write) -> Result<(), ClientError> {
    let url = format!("{}/function/{}", options.target.url, options.name);
    let data = read_data(options)?;

    let mut request = client::agent().post(&url);
    if let Some(authorization) = options.target.authorization()? {
        request = request.header("authorization", authorization);
    }
    if let Some(timeout_ms) = options.timeout_ms {
        let patience = Duration::from_millis(timeout_ms) + ANSWER_GRACE;
        request = request.header(TIMEOUT_HEADER, timeout_ms.to_string());
        request = request.config().timeout_global(Some(patience)).build();
    }
    let no_answer = |source| ClientError::NoAnswer { url: url.clone(), source };
    let response = request.send(&data[..]).map_err(no_answer)?;

    if options.include {
        write_head(&response, out).map_err(ClientError::Output)?;
    }
    let status = response.status();
    if status.is_success() {
        return pass_on(response.into_body().into_reader(), out, &url);
    }
    let failure = report_failure(response, options.include, out, &url)?;
    let reason = status.canonical_reason().unwrap_or("");
    let failure = failure.unwrap_or_else(|| format!("{} {reason}", status.as_u16()));
    Err(ClientError::Failed { subject: options.name.clone(), failure })
}

fn function_name(text: &str) -> Result<String, String> {
    if config::is_function_name(text) {
        Ok(text.to_owned())
    } else {
        Err(format!("expected {}", config::FUNCTION_NAME))
    }
}

fn read_data(options: &Options) -> Result<Vec<u8>, ClientError> {
    let Some(path) = &options.data_file else {
        return Ok(options.data.clone().unwrap_or_default().into_bytes());
    };
    let read = if path == Path::new("-") {
        let mut data = Vec::new();
        io::stdin().lock().read_to_end(&mut data).map(|_| data)
    } else {
        fs::read(path)
    };
    read.map_err(|source| ClientError::Input { path: path.clone(), source })
}

fn write_head(response: &Response<Body>, out: &mut impl Write) -> io::Result<()> {
    let status = response.status();
    let reason = status.canonical_reason().unwrap_or("");
    writeln!(out, "{:?} {} {reason}", response.version(), status.as_u16())?;
    for (name, value) in response.headers() {
        write!(out, "{name}: ")?;
        out.write_all(value.as_bytes())?;
        writeln!(out)?;
    }
    writeln!(out)
}

/// Copies by hand, since only reads are the gateway's fault.
fn pass_on(mut from: impl Read, out: &mut impl Write, url: &str) -> Result<(), ClientError> {
    let mut chunk = vec![0; 64 << 10];
    loop {
        let size = from.read(&mut chunk).map_err(|error| ClientError::NoAnswer {
            url: url.to_owned(),
            source: ureq::Error::Io(error),
        })?;
        if size == 0 {
            return out.flush().map_err(ClientError::Output);
        }
        out.write_all(&chunk[..size]).map_err(ClientError::Output)?;
    }
}

/// What the gateway says of a failed call. A body that is the function's own goes to `out`.
fn report_failure(
    response: Response<Body>,
    is_included: bool,
    out: &mut impl Write,
    url: &str,
) -> Result<Option<String>, ClientError> {
    let status = response.status().as_u16();
    let mut body = Vec::new();
    let mut reader = response.into_body().into_reader();
    reader.by_ref().take(PARSED_SIZE_MAX).read_to_end(&mut body).map_err(|error| {
        ClientError::NoAnswer { url: url.to_owned(), source: ureq::Error::Io(error) }
    })?;
    let error = serde_json::from_slice::<ErrorBody>(&body).ok();
    if is_included || error.is_none() {
        pass_on(body.chain(reader), out, url)?;
    }
    Ok(error.map(|e| format!("{status} {}: {} (request {})", e.error, e.message, e.request_id)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::tests::{answer, answer_once, at};

    fn options(target: Target) -> Options {
        Options {
            name: "hello".into(),
            data: Some("world".into()),
            data_file: None,
            target,
            timeout_ms: None,
            include: false,
        }
    }

    /// Exit code, output and error message of an invocation that gets `answer`; its request.
    fn invoke(answer: &str, change: impl FnOnce(&mut Options)) -> (u8, String, String, String) {
        let (target, server) = answer_once(answer.to_owned());
        let mut options = options(target);
        change(&mut options);
        let mut out = Vec::new();
        let result = run(&options, &mut out);
        let request = server.join().unwrap();
        let out = String::from_utf8(out).unwrap();
        match result {
            Ok(()) => (0, out, String::new(), request),
            Err(error) => (error.exit_code(), out, error.to_string(), request),
        }
    }

    const OK: &str = "HTTP/1.1 200 OK\r\nX-Request-Id: 7\r\nContent-Length: 3\r\n\r\nhi\n";
    const NOT_FOUND: &str =
        r#"{"error":"not_found","message":"no function hello","request_id":"req-01"}"#;

    #[test]
    fn the_data_is_posted_and_the_body_comes_out_unchanged() {
        let (code, out, _, request) = invoke(OK, |_| ());
        assert_eq!((code, out.as_str()), (0, "hi\n"));
        assert!(request.starts_with("POST /function/hello HTTP/1.1\r\n"), "{request}");
        assert!(request.ends_with("\r\n\r\nworld"), "{request}");
        assert!(!request.to_ascii_lowercase().contains(TIMEOUT_HEADER), "{request}");
    }

    #[test]
    fn the_data_may_come_from_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "from a file").unwrap();
        let (code, _, _, request) = invoke(OK, |options| {
            options.data = None;
            options.data_file = Some(file.path().to_owned());
        });
        assert_eq!(code, 0);
        assert!(request.ends_with("\r\n\r\nfrom a file"), "{request}");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named_before_anything_is_sent() {
        let mut options = options(at("http://127.0.0.1:9".into()));
        options.data_file = Some("/nonexistent/data".into());
        let error = run(&options, &mut Vec::new()).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().starts_with("/nonexistent/data: cannot be read: "), "{error}");
    }

    #[test]
    fn a_shorter_time_limit_travels_in_a_header() {
        let (_, _, _, request) = invoke(OK, |options| options.timeout_ms = Some(250));
        assert!(request.to_ascii_lowercase().contains("x-nightcore-timeout-ms: 250\r\n"));
    }

    #[test]
    fn status_and_headers_are_shown_when_asked_for() {
        let (code, out, _, _) = invoke(OK, |options| options.include = true);
        assert_eq!(code, 0);
        assert_eq!(out, "HTTP/1.1 200 OK\nx-request-id: 7\ncontent-length: 3\n\nhi\n");
    }

    #[test]
    fn a_failed_call_is_told_in_one_line_and_leaves_the_output_empty() {
        let (code, out, message, _) = invoke(&answer("404 Not Found", NOT_FOUND), |_| ());
        assert_eq!((code, out.as_str()), (1, ""));
        assert_eq!(message, "hello: 404 not_found: no function hello (request req-01)");
    }

    #[test]
    fn a_failed_call_with_a_body_of_the_function_passes_that_body_on() {
        let (code, out, message, _) = invoke(&answer("418 I'm a teapot", "short"), |_| ());
        assert_eq!((code, out.as_str()), (1, "short"));
        assert_eq!(message, "hello: 418 I'm a teapot");
    }

    #[test]
    fn an_answer_that_breaks_off_is_no_success() {
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\nhi\n";
        let (code, out, _, _) = invoke(answer, |_| ());
        assert_eq!((code, out.as_str()), (3, "hi\n"));
    }

    #[test]
    fn a_gateway_that_is_not_there_is_no_answer() {
        // Bound but not listening: nobody else can take the port meanwhile.
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", socket.local_addr().unwrap());
        let error = run(&options(at(url)), &mut Vec::new()).unwrap_err();
        assert_eq!(error.exit_code(), 3);
        assert!(error.to_string().starts_with("http://127.0.0.1:"), "{error}");
    }
}
