//! `peer`: one command a comparison target; see `--help` and README.md.

use std::error::Error;
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use nightcore_peers::grpc::{self, Channels};
use nightcore_peers::http_backend::Pool;
use nightcore_peers::ping_pong::{self, Cores, Mode, Plan};
use nightcore_peers::server::{self, Address};
use nightcore_peers::{front, http};

#[derive(Parser)]
#[command(version, about = "What one would run instead of Nightcore, as comparison targets")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// HTTP/1.1 by hyper: POST /function/nop and /function/echo
    Hyper {
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long, default_value_t = 1)]
        threads: usize,
    },
    /// HTTP/1.1 front: POST /function/chain and /function/fanout call the echo of a `peer hyper`
    HyperFront {
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long, default_value_t = 1)]
        threads: usize,
        #[arg(long)]
        backend: SocketAddr,
        /// Connections to the backend at most; each carries one call at a time
        #[arg(long, default_value_t = 1024)]
        backend_connections: usize,
    },
    /// gRPC echo by tonic
    Tonic {
        /// tcp:HOST:PORT or unix:PATH
        #[arg(long)]
        listen: Address,
        #[arg(long, default_value_t = 1)]
        threads: usize,
    },
    /// HTTP/1.1 front: POST /function/chain and /function/fanout call a `peer tonic`
    TonicFront {
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long, default_value_t = 1)]
        threads: usize,
        /// tcp:HOST:PORT or unix:PATH
        #[arg(long)]
        backend: Address,
        /// Connections to the backend, each shared by many calls
        #[arg(long, default_value_t = 1)]
        backend_connections: usize,
    },
    /// Round trips between two processes by iceoryx2; prints one JSON line
    Iceoryx2 {
        /// How a side waits
        #[arg(long, value_enum)]
        mode: Mode,
        /// Bytes of request and answer
        #[arg(long, default_value_t = 1024)]
        size: usize,
        /// Round trips that count
        #[arg(long, default_value_t = 100_000)]
        rounds: u64,
        /// Cores of client and server, as in 0,1; the kernel's choice otherwise
        #[arg(long)]
        cores: Option<Cores>,
    },
    /// The other side of `iceoryx2`, which starts it
    #[command(hide = true)]
    Iceoryx2Server {
        #[arg(long, value_enum)]
        mode: Mode,
        #[arg(long)]
        size: usize,
        #[arg(long)]
        service: String,
        #[arg(long)]
        core: Option<usize>,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peer: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), Box<dyn Error>> {
    match command {
        Command::Hyper { listen, threads } => {
            server::run(threads, http::serve(listen, http::nop_or_echo))?;
        }
        Command::HyperFront { listen, threads, backend, backend_connections } => {
            server::run(threads, async move {
                front::serve(listen, Pool::connect(backend, backend_connections).await?).await
            })?;
        }
        Command::Tonic { listen, threads } => server::run(threads, grpc::serve(listen))?,
        Command::TonicFront { listen, threads, backend, backend_connections } => {
            server::run(threads, async move {
                front::serve(listen, Channels::connect(&backend, backend_connections).await?).await
            })?;
        }
        Command::Iceoryx2 { mode, size, rounds, cores } => {
            let sample = ping_pong::run(&Plan { mode, size, rounds, cores })?;
            println!("{}", serde_json::to_string(&sample)?);
        }
        Command::Iceoryx2Server { mode, size, service, core } => {
            ping_pong::serve(mode, size, &service, core)?;
        }
    }
    Ok(())
}
