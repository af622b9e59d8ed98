//! What `invoke`, `ls` and `top` share: where the gateway is, how it is asked, what can go wrong.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use ureq::Agent;
use ureq::http::{HeaderValue, StatusCode};

/// Time to connect. A gateway on this host answers at once or not at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Documents are written at once: a gateway that takes longer hangs.
const DOCUMENT_TIMEOUT: Duration = Duration::from_secs(5);
/// Variable with the key or token that the gateway asks for, where no file is named. No option: others
/// can read command lines.
const KEY_VARIABLE: &str = "NIGHTCORE_KEY";
/// Most bytes read of an answer that is parsed: several times the list of 1024 functions.
pub(crate) const PARSED_SIZE_MAX: u64 = 4 << 20;

/// Which gateway to ask.
#[derive(Clone, Debug, clap::Args)]
pub struct Target {
    /// Address of the gateway
    #[arg(
        long, visible_alias = "gateway", value_name = "URL",
        default_value = "http://127.0.0.1:8080", value_parser = base_url
    )]
    pub url: String,
    /// File that holds an API key or a token and nothing else; without it, the variable
    /// NIGHTCORE_KEY is it, if it is set
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
}

impl Target {
    /// The value of the header by which this client says who it is, if it has a key.
    ///
    /// # Errors
    /// When there is to be one, and cannot be used.
    pub(crate) fn authorization(&self) -> Result<Option<HeaderValue>, ClientError> {
        let key = match &self.key_file {
            Some(path) => {
                let failed = |source| ClientError::Input { path: path.clone(), source };
                Some(std::fs::read_to_string(path).map_err(failed)?)
            }
            None => std::env::var(KEY_VARIABLE).ok().filter(|key| !key.is_empty()),
        };
        let Some(key) = key else { return Ok(None) };
        let key = key.trim();
        // Never repeated in a message: it is a secret, though a broken one.
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            let path = self.key_file.clone().unwrap_or_else(|| KEY_VARIABLE.into());
            let source =
                io::Error::new(io::ErrorKind::InvalidData, "it holds neither key nor token");
            return Err(ClientError::Input { path, source });
        }
        let value = HeaderValue::try_from(format!("Bearer {key}"));
        Ok(value.ok().map(|mut value| {
            value.set_sensitive(true);
            value
        }))
    }

    /// Gets a document, with its status.
    ///
    /// # Errors
    /// When there is no answer within 5 s, or no key where there is to be one.
    pub(crate) fn get(&self, url: &str) -> Result<(StatusCode, String), ClientError> {
        let no_answer = |source| ClientError::NoAnswer { url: url.to_owned(), source };
        let mut request = agent().get(url);
        if let Some(authorization) = self.authorization()? {
            request = request.header("authorization", authorization);
        }
        let request = request.config().timeout_global(Some(DOCUMENT_TIMEOUT)).build();
        let response = request.call().map_err(no_answer)?;
        let status = response.status();
        let body = response.into_body().into_with_config().limit(PARSED_SIZE_MAX);
        Ok((status, body.read_to_string().map_err(no_answer)?))
    }
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
        .build()
        .new_agent()
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
        (at(url), server)
    }

    /// A target without a key.
    pub(crate) fn at(url: String) -> Target {
        Target { url, key_file: None }
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
    fn a_key_comes_from_a_file_and_is_told_to_nobody_else() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let target = Target { key_file: Some(file.path().to_owned()), ..at(String::new()) };
        std::fs::write(file.path(), "nck_1_abc\n").unwrap();
        assert_eq!(target.authorization().unwrap().unwrap(), "Bearer nck_1_abc");
        for broken in ["", "\n", "nck_ 1", "nck_1\nnck_2", "n\u{e4}"] {
            std::fs::write(file.path(), broken).unwrap();
            let error = target.authorization().unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().ends_with("it holds neither key nor token"), "{error}");
        }
        let target = Target { key_file: Some("/nonexistent/key".into()), ..target };
        assert_eq!(target.authorization().unwrap_err().exit_code(), 2);
    }

    #[test]
    fn a_document_is_asked_for_with_the_key() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "nck_1_abc").unwrap();
        let (target, server) = answer_once(answer("200 OK", "hi"));
        let target = Target { key_file: Some(file.path().to_owned()), ..target };
        let (status, body) = target.get(&format!("{}/v1/functions", target.url)).unwrap();
        assert_eq!((status.as_u16(), body.as_str()), (200, "hi"));
        let request = server.join().unwrap().to_ascii_lowercase();
        assert!(request.contains("\r\nauthorization: bearer nck_1_abc\r\n"), "{request}");
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
