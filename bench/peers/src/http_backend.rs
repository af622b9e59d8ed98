//! Calls by HTTP/1.1: a pool of hyper's own client connections. One carries one call at a time, so
//! the pool grows to as many as are in flight, up to a limit, and gives out the one used last.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{HOST, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::front::{Backend, CallError};
use crate::server::Error;

/// Kept connections to one backend.
pub struct Pool {
    address: SocketAddr,
    host: HeaderValue,
    permits: Semaphore,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
}

impl Pool {
    /// A pool of at most `connections` to `address`, with one open.
    ///
    /// # Errors
    /// The backend does not answer a first call.
    pub async fn connect(address: SocketAddr, connections: usize) -> Result<Pool, Error> {
        let pool = Pool {
            address,
            host: HeaderValue::try_from(address.to_string()).map_err(io_error)?,
            permits: Semaphore::new(connections.max(1)),
            idle: Mutex::default(),
        };
        pool.call(Bytes::new()).await.map_err(|source| Error::Backend { address, source })?;
        Ok(pool)
    }

    /// A connection that takes a request now: the one used last that still lives, else a new one.
    async fn connection(&self) -> Result<SendRequest<Full<Bytes>>, CallError> {
        while let Some(mut connection) = self.take() {
            if connection.ready().await.is_ok() {
                return Ok(connection);
            }
        }
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let (connection, task) = handshake(TokioIo::new(stream)).await?;
        // Its error also reaches the call that it fails.
        tokio::spawn(task);
        Ok(connection)
    }

    fn take(&self) -> Option<SendRequest<Full<Bytes>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn give_back(&self, connection: SendRequest<Full<Bytes>>) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    }
}

impl Backend for Pool {
    async fn call(&self, payload: Bytes) -> Result<Bytes, CallError> {
        let mut request = Request::new(Full::new(payload));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_static("/function/echo");
        request.headers_mut().insert(HOST, self.host.clone());

        // Never closed, so always granted in the end.
        let _permit = self.permits.acquire().await;
        let mut connection = self.connection().await?;
        let answer = connection.send_request(request).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        self.give_back(connection);
        if status == StatusCode::OK { Ok(body) } else { Err(CallError::Status(status)) }
    }
}

fn io_error(error: impl std::error::Error + Send + Sync + 'static) -> std::io::Error {
    std::io::Error::other(error)
}
