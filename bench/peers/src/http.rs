//! HTTP/1.1 by hyper: the serving side of the fronts and of the hyper peer, whose `nop` and `echo`
//! are here.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::server::{Error, announce};

/// An answer whose body is known as a whole.
pub type Answer = Response<Full<Bytes>>;

/// Answers requests with `handler` until the listener fails. Connections live as long as clients
/// want.
///
/// # Errors
/// The address is taken, or the listener failed.
pub async fn serve<H, F>(listen: SocketAddr, handler: H) -> Result<(), Error>
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let failed = |source| Error::Listen { address: listen.to_string(), source };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    announce(listener.local_addr()?)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let handler = handler.clone();
        let service = service_fn(move |request| {
            let answer = handler(request);
            async { Ok::<_, Infallible>(answer.await) }
        });
        // How a connection ends is the client's business.
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

/// `nop` answers nothing, `echo` what it was sent.
pub async fn nop_or_echo(request: Request<Incoming>) -> Answer {
    match (request.method(), request.uri().path()) {
        (&Method::POST, "/function/nop") => Answer::default(),
        (&Method::POST, "/function/echo") => match request.into_body().collect().await {
            Ok(body) => Answer::new(Full::new(body.to_bytes())),
            Err(error) => refuse(StatusCode::BAD_REQUEST, &error.to_string()),
        },
        _ => refuse(StatusCode::NOT_FOUND, "unknown function"),
    }
}

/// An answer that says what is wrong.
#[must_use]
pub fn refuse(status: StatusCode, message: &str) -> Answer {
    let mut answer = Answer::new(Full::from(format!("{message}\n")));
    *answer.status_mut() = status;
    answer
}
