//! What `invoke`, `ls` and `top` share: where the gateway is, how it is asked, what can go wrong.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use ureq::http::{HeaderValue, Request, Response, header};
use ureq::middleware::MiddlewareNext;
use ureq::{Agent, Body, SendBody};

/// Time to connect. A gateway on this host answers at once or not at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Variable with the key or token that the gateway asks for. No option: others can read command lines.
const KEY_VARIABLE: &str = "NIGHTCORE_KEY";
/// Most bytes read of an answer that is parsed: several times the list of 1024 functions.
pub(crate) const PARSED_SIZE_MAX: u64 = 4 << 20;

/// Which gateway to ask.
#[derive(Clone, Debug, clap::Args)]
pub struct Target {
    /// Address of the gateway
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080", value_parser = base_url)]
    pub url: String,
}

/// Why a client command did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The gateway answered, and the call had failed.
    #[error("{subject}: {failure}")]
    Failed {
        /// What was called.
        subject: String,
        /// Status, and the reason where one was given.
        failure: String,
    },
    /// No answer, or only a part of one.
    #[error("{url}: {source}")]
    NoAnswer {
        /// What was asked.
        url: String,
        /// How it failed.
        source: ureq::Error,
    },
    /// An answer that a gateway does not give.
    #[error("{url}: not the answer of a gateway: {reason}")]
    OddAnswer {
        /// What was asked.
        url: String,
        /// What is odd about it.
        reason: String,
    },
    /// The data to send could not be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Input {
        /// File of the data.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The answer could not be written to standard output.
    #[error("standard output: {0}")]
    Output(#[source] io::Error),
    /// The system lacks something.
    #[error("{what}: {source}")]
    System {
        /// What was not possible.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl ClientError {
    /// Exit code of the command, as its `--help` has it.
    pub fn exit_code(&self) -> u8 {
        match self {
            ClientError::Failed { .. } | ClientError::Output(_) | ClientError::System { .. } => 1,
            ClientError::Input { .. } => 2,
            ClientError::NoAnswer { .. } | ClientError::OddAnswer { .. } => 3,
        }
    }
}

/// An agent for one request: no proxy, no redirect, statuses are for the caller to judge.
pub(crate) fn agent() -> Agent {
    Agent::config_builder()
        .proxy(None)
        .max_redirects(0)
        .http_status_as_error(false)
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .user_agent(concat!("nightcore/", env!("CARGO_PKG_VERSION")))
        .middleware(show_key)
        .build()
        .new_agent()
}

/// Adds the key of the environment, if there is one. It goes to the gateway of the command line only, as
/// no redirect is followed.
fn show_key(
    mut request: Request<SendBody>,
    next: MiddlewareNext<'_>,
) -> Result<Response<Body>, ureq::Error> {
    if let Ok(key) = std::env::var(KEY_VARIABLE)
        && let Ok(mut value) = HeaderValue::try_from(format!("Bearer {}", key.trim()))
    {
        value.set_sensitive(true);
        request.headers_mut().insert(header::AUTHORIZATION, value);
    }
    next.handle(request)
}

/// Accepts `http://HOST[:PORT]` and drops a slash at its end.
fn base_url(text: &str) -> Result<String, String> {
    let trimmed = text.trim_end_matches('/');
    match trimmed.strip_prefix("http://") {
        Some(host) if !host.is_empty() && !host.contains(['/', '?', '#']) => Ok(trimmed.to_owned()),
        _ => Err("expected http://HOST or http://HOST:PORT".to_owned()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread::JoinHandle;

    use super::*;

    /// An answer whose length is that of its body.
    pub(crate) fn answer(status: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    }

    /// A gateway that gives one canned answer and returns the request it read.
    pub(crate) fn answer_once(answer: String) -> (Target, JoinHandle<String>) {
        let (target, server) = answer_each(vec![answer]);
        (target, std::thread::spawn(move || server.join().unwrap().remove(0)))
    }

    /// A gateway that gives canned answers, each on a connection of its own, and returns the requests
    /// it read. Then it is gone.
    pub(crate) fn answer_each(answers: Vec<String>) -> (Target, JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            answers.into_iter().map(|answer| serve(&listener, &answer)).collect()
        });
        (Target { url }, server)
    }

    fn serve(listener: &TcpListener, answer: &str) -> String {
        let (mut socket, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        let mut chunk = [0; 1024];
        while !is_complete(&request) {
            let size = socket.read(&mut chunk).unwrap();
            assert_ne!(size, 0, "the client hung up");
            request.extend_from_slice(&chunk[..size]);
        }
        socket.write_all(answer.as_bytes()).unwrap();
        String::from_utf8(request).unwrap()
    }

    /// Whether the head and as many bytes as its Content-Length says are there.
    fn is_complete(request: &[u8]) -> bool {
        let text = String::from_utf8_lossy(request).to_ascii_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        body.len() >= length.map_or(0, |digits| digits.parse().unwrap())
    }

    #[test]
    fn a_url_is_a_host_and_perhaps_a_port() {
        assert_eq!(base_url("http://127.0.0.1:8080/").unwrap(), "http://127.0.0.1:8080");
        assert_eq!(base_url("http://localhost").unwrap(), "http://localhost");
        for text in ["", "localhost:8080", "https://localhost", "http://", "http://host/path"] {
            assert!(base_url(text).is_err(), "{text}");
        }
    }
}
