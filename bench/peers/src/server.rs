//! Threads, readiness and the end of a server: what all peers that serve have in common.

use std::fmt::Display;
use std::future::Future;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};

/// Where a backend listens: `tcp:HOST:PORT`, with HOST an IP address, or `unix:PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A TCP socket.
    Tcp(SocketAddr),
    /// A unix stream socket.
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Address, String> {
        match text.split_once(':') {
            Some(("tcp", rest)) => {
                rest.parse().map(Address::Tcp).map_err(|error| format!("{rest}: {error}"))
            }
            Some(("unix", path)) if !path.is_empty() => Ok(Address::Unix(path.into())),
            _ => Err("expected tcp:HOST:PORT or unix:PATH".to_owned()),
        }
    }
}

/// Why a server ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused a thread, a socket or a signal handler.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It could not listen.
    #[error("listen on {address}: {source}")]
    Listen {
        /// Where.
        address: String,
        /// What the system says.
        source: io::Error,
    },
    /// tonic's server or channel.
    #[error("gRPC: {}", chain(.0))]
    Grpc(#[from] tonic::transport::Error),
    /// The backend of a front does not answer.
    #[error("backend {address}: {source}")]
    Backend {
        /// Where it should be.
        address: SocketAddr,
        /// The first failed call.
        source: crate::front::CallError,
    },
    /// The server's task panicked.
    #[error("server: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// An error with its causes: tonic's own text is `transport error`.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// Runs `server` on so many threads until it fails or SIGTERM comes, which is its regular end.
///
/// # Errors
/// What the server returned, or that the system refused threads or the signal handler.
pub fn run(
    threads: usize,
    server: impl Future<Output = Result<(), Error>> + Send + 'static,
) -> Result<(), Error> {
    let runtime = runtime(threads)?;
    let ended = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            ended = tokio::spawn(server) => ended?,
            _ = terminate.recv() => Ok(()),
        }
    });
    runtime.shutdown_background();
    ended
}

/// One thread does without the queues and wake-ups between workers, as tokio's documentation says.
fn runtime(threads: usize) -> io::Result<Runtime> {
    match threads {
        0 | 1 => Builder::new_current_thread().enable_all().build(),
        workers => Builder::new_multi_thread().worker_threads(workers).enable_all().build(),
    }
}

/// Says that connections are accepted from now on.
///
/// # Errors
/// Nobody reads what it prints.
pub fn announce(address: impl Display) -> io::Result<()> {
    let mut out = io::stdout();
    writeln!(out, "listening on {address}")?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_says_its_kind() {
        assert_eq!("tcp:127.0.0.1:80".parse(), Ok(Address::Tcp(([127, 0, 0, 1], 80).into())));
        assert_eq!("unix:/run/a:b".parse(), Ok(Address::Unix("/run/a:b".into())));
        for wrong in ["127.0.0.1:80", "unix:", "tcp:localhost", ""] {
            assert!(wrong.parse::<Address>().is_err(), "{wrong}");
        }
    }
}
