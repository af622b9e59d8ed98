//! A front: takes a request over HTTP/1.1, makes calls to a backend, answers how long each took. The
//! requests and answers are those of the `chain` and `fanout` examples.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, StatusCode};

use crate::http::{self, Answer, refuse};
use crate::measure::{Arguments, Summary};
use crate::server::Error;

/// Calls of one fan-out in flight at most: as many as in the example it is compared with.
const WINDOW: usize = 48;

/// What carries calls to another process.
pub trait Backend: Send + Sync + 'static {
    /// Sends `payload` and returns what came back.
    fn call(&self, payload: Bytes) -> impl Future<Output = Result<Bytes, CallError>> + Send;
}

/// Why a call gave no answer, or a wrong one.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No connection to the backend.
    #[error("connect: {0}")]
    Connect(#[from] std::io::Error),
    /// HTTP, or the connection below it.
    #[error("call: {0}")]
    Http(#[from] hyper::Error),
    /// The backend answered with another status than 200.
    #[error("the backend answered {0}")]
    Status(StatusCode),
    /// gRPC.
    #[error("call: {0}")]
    Grpc(#[from] tonic::Status),
    /// The answer is not an echo.
    #[error("{sent} bytes sent, {received} received")]
    Length {
        /// Bytes of the call.
        sent: usize,
        /// Bytes of the answer.
        received: usize,
    },
}

/// Serves `chain` and `fanout` with calls to `backend`, until the listener fails.
///
/// # Errors
/// The address is taken, or the listener failed.
pub async fn serve(listen: SocketAddr, backend: impl Backend) -> Result<(), Error> {
    let backend = Arc::new(backend);
    http::serve(listen, move |request| answer(Arc::clone(&backend), request)).await
}

async fn answer(backend: Arc<impl Backend>, request: Request<Incoming>) -> Answer {
    let in_flight = match (request.method(), request.uri().path()) {
        (&Method::POST, "/function/chain") => 1,
        (&Method::POST, "/function/fanout") => WINDOW,
        _ => return refuse(StatusCode::NOT_FOUND, "unknown function"),
    };
    let mut arguments = match arguments(request).await {
        Ok(arguments) => arguments,
        Err(message) => return refuse(StatusCode::BAD_REQUEST, &message),
    };
    let payload = Bytes::from(arguments.payload());
    let times = match in_flight {
        1 => in_sequence(&*backend, &payload, arguments.n).await,
        _ => in_parallel(&*backend, &payload, arguments.n).await,
    };
    match times {
        Ok(times) => summarise(payload.len(), times),
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

async fn arguments(request: Request<Incoming>) -> Result<Arguments, String> {
    let body = request.into_body().collect().await.map_err(|error| error.to_string())?;
    Arguments::parse(&body.to_bytes())
}

async fn in_sequence(
    backend: &impl Backend,
    payload: &Bytes,
    n: u32,
) -> Result<Vec<Duration>, CallError> {
    let mut times = Vec::with_capacity(n as usize);
    for _ in 0..n {
        times.push(timed(backend, payload.clone()).await?);
    }
    Ok(times)
}

/// All of them polled by this one task: the connections' tasks do the work, and nothing is spawned.
async fn in_parallel(
    backend: &impl Backend,
    payload: &Bytes,
    n: u32,
) -> Result<Vec<Duration>, CallError> {
    stream::iter((0..n).map(|_| timed(backend, payload.clone())))
        .buffer_unordered(WINDOW)
        .try_collect()
        .await
}

async fn timed(backend: &impl Backend, payload: Bytes) -> Result<Duration, CallError> {
    let sent = payload.len();
    let start = Instant::now();
    let received = backend.call(payload).await?.len();
    let time = start.elapsed();
    if received == sent { Ok(time) } else { Err(CallError::Length { sent, received }) }
}

fn summarise(size: usize, times: Vec<Duration>) -> Answer {
    match Summary::new(size, times).to_json() {
        Ok(json) => {
            let mut answer = Answer::new(Full::from(json));
            let json = HeaderValue::from_static("application/json");
            answer.headers_mut().insert(CONTENT_TYPE, json);
            answer
        }
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}
