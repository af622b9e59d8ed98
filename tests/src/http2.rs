//! A client of HTTP/2 on a connection of its own, and frames as bytes for those who break rules.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use http::{HeaderMap, Method, Request, Uri};
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use crate::watchdog::PATIENCE;

/// Bytes that a client takes without being asked to.
const WINDOW: u32 = 16 << 20;

/// A connection. Its frames are handled by a thread of its own.
#[derive(Debug)]
pub struct Http2 {
    runtime: Runtime,
    sender: SendRequest<Bytes>,
    driver: JoinHandle<Result<(), h2::Error>>,
    authority: String,
}

/// An answer that is to come.
#[derive(Debug)]
pub struct Awaited {
    response: ResponseFuture,
    stream: h2::SendStream<Bytes>,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Http2Answer {
    /// Its status.
    pub status: u16,
    /// Its fields.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Vec<u8>,
    /// What came behind the body.
    pub trailers: Option<HeaderMap>,
}

/// What comes behind the head of a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// It is the whole request.
    Nothing,
    Body,
}

/// The fields of a request.
pub type Fields<'a> = &'a [(&'a str, &'a str)];

impl Http2 {
    /// Connects.
    ///
    /// # Panics
    /// If that fails.
    #[must_use]
    pub fn connect(address: SocketAddr) -> Http2 {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let (sender, driver) = runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(address).await.expect("it listens");
            begin(stream).await.expect("it speaks HTTP/2")
        });
        Http2 { runtime, sender, driver, authority: address.to_string() }
    }

    /// Connects by TLS to what calls itself `localhost`, and returns the certificate it showed too.
    ///
    /// # Errors
    /// No TLS, or no HTTP/2 over it, came about.
    ///
    /// # Panics
    /// If nothing listens.
    pub fn connect_tls(
        address: SocketAddr,
        config: Arc<ClientConfig>,
    ) -> io::Result<(Http2, CertificateDer<'static>)> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let ((sender, driver), certificate) = runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(address).await.expect("it listens");
            let name = ServerName::try_from("localhost").expect("a name");
            let stream = TlsConnector::from(config).connect(name, stream).await?;
            let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
            let certificate = shown.expect("a certificate").clone().into_owned();
            Ok::<_, io::Error>((begin(stream).await.map_err(io::Error::other)?, certificate))
        })?;
        let authority = format!("localhost:{}", address.port());
        Ok((Http2 { runtime, sender, driver, authority }, certificate))
    }

    /// Sends a request and waits for the answer.
    ///
    /// # Panics
    /// If none comes.
    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        fields: Fields<'_>,
        body: &[u8],
    ) -> Http2Answer {
        let awaited = self.send(method, path, fields, body);
        self.answer(awaited).expect("an answer")
    }

    /// Posts to a function.
    pub fn call(&mut self, function: &str, body: &[u8]) -> Http2Answer {
        self.request("POST", &format!("/function/{function}"), &[], body)
    }

    /// A unary call of gRPC, with the prefix put before the message.
    pub fn grpc(&mut self, path: &str, fields: Fields<'_>, message: &[u8]) -> Http2Answer {
        self.grpc_raw(path, fields, &framed(message))
    }

    /// The same with a body that may be anything.
    pub fn grpc_raw(&mut self, path: &str, fields: Fields<'_>, body: &[u8]) -> Http2Answer {
        let own = [("content-type", "application/grpc"), ("te", "trailers")];
        self.request("POST", path, &[&own, fields].concat(), body)
    }

    /// Sends a request.
    ///
    /// # Panics
    /// If it cannot be sent.
    pub fn send(&mut self, method: &str, path: &str, fields: Fields<'_>, body: &[u8]) -> Awaited {
        if body.is_empty() {
            return self.open(method, path, fields, Rest::Nothing);
        }
        let mut awaited = self.begin(method, path, fields);
        awaited.stream.send_data(Bytes::copy_from_slice(body), true).expect("the stream is open");
        awaited
    }

    /// Sends the head of a request.
    ///
    /// # Panics
    /// If it cannot be sent.
    pub fn begin(&mut self, method: &str, path: &str, fields: Fields<'_>) -> Awaited {
        self.open(method, path, fields, Rest::Body)
    }

    fn open(&mut self, method: &str, path: &str, fields: Fields<'_>, rest: Rest) -> Awaited {
        let uri: Uri = format!("http://{}{path}", self.authority).parse().expect("a URI");
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(()).expect("a request");
        let sender = self.sender.clone();
        self.runtime.block_on(async {
            let ready = tokio::time::timeout(PATIENCE, sender.ready()).await;
            let mut sender = ready.expect("in time").expect("the connection is open");
            let (response, stream) =
                sender.send_request(request, rest == Rest::Nothing).expect("it is valid");
            Awaited { response, stream }
        })
    }

    /// Waits for the answer.
    ///
    /// # Errors
    /// The stream or the connection ended without one.
    ///
    /// # Panics
    /// If nothing happens.
    pub fn answer(&mut self, awaited: Awaited) -> Result<Http2Answer, h2::Error> {
        // The stream is kept: to drop it unfinished is to reset it.
        let Awaited { response, stream: _stream } = awaited;
        self.runtime.block_on(async {
            let answer = tokio::time::timeout(PATIENCE, async {
                let (head, mut incoming) = response.await?.into_parts();
                let mut body = Vec::new();
                while let Some(data) = incoming.data().await {
                    let data = data?;
                    body.extend_from_slice(&data);
                    incoming.flow_control().release_capacity(data.len())?;
                }
                let trailers = incoming.trailers().await?;
                let (status, headers) = (head.status.as_u16(), head.headers);
                Ok(Http2Answer { status, headers, body, trailers })
            });
            answer.await.expect("an answer in time")
        })
    }

    /// Resets a stream.
    pub fn reset(&self, mut awaited: Awaited) {
        awaited.stream.send_reset(h2::Reason::CANCEL);
        drop(awaited);
    }

    /// Waits until the other side has closed the connection.
    ///
    /// # Panics
    /// If it does not.
    pub fn wait_for_end(&mut self) -> Result<(), h2::Error> {
        let driver = &mut self.driver;
        let ended = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, driver).await });
        ended.expect("the end in time").expect("the driver does not panic")
    }
}

type Begun = (SendRequest<Bytes>, JoinHandle<Result<(), h2::Error>>);

async fn begin<S>(stream: S) -> Result<Begun, h2::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = h2::client::Builder::new();
    // Answers are taken one after the other: those that have to wait must not stop the others.
    builder.initial_connection_window_size(WINDOW).initial_window_size(WINDOW);
    let (sender, connection) = builder.handshake(stream).await?;
    Ok((sender, tokio::spawn(connection)))
}

impl Awaited {
    /// Sends more of the body, of which this is not the end.
    ///
    /// # Panics
    /// If the stream is closed.
    pub fn push(&mut self, body: &[u8]) {
        self.stream.send_data(Bytes::copy_from_slice(body), false).expect("the stream is open");
    }
}

impl Http2Answer {
    /// A field as text; empty if it is not there.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        text(&self.headers, name)
    }

    /// A field of gRPC, from the trailers or, where there is no message, the head.
    #[must_use]
    pub fn grpc_field(&self, name: &str) -> &str {
        text(self.trailers.as_ref().unwrap_or(&self.headers), name)
    }

    /// `grpc-status`.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn grpc_status(&self) -> u16 {
        self.grpc_field("grpc-status").parse().unwrap_or_else(|_| panic!("no status: {self:?}"))
    }

    /// The message without its prefix.
    ///
    /// # Panics
    /// If there is not exactly one.
    #[must_use]
    pub fn message(&self) -> &[u8] {
        let (prefix, message) = self.body.split_first_chunk::<5>().expect("a prefix");
        let size = u32::try_from(message.len()).expect("a size").to_be_bytes();
        assert_eq!(prefix[..], [&[0][..], &size].concat());
        message
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).map(|value| value.to_str().expect("text")).unwrap_or_default()
}

/// A message of gRPC behind its prefix.
#[must_use]
pub fn framed(message: &[u8]) -> Vec<u8> {
    let size = u32::try_from(message.len()).expect("a size").to_be_bytes();
    [&[0][..], &size, message].concat()
}

/// A frame that came.
#[derive(Clone, Debug)]
pub struct Frame {
    /// As in [`kind`].
    pub kind: u8,
    /// Such as [`END_STREAM`].
    pub flags: u8,
    /// Zero: of the connection.
    pub stream: u32,
    /// What is in it.
    pub payload: Vec<u8>,
}

/// A connection on which any bytes are sent.
#[derive(Debug)]
pub struct Raw(TcpStream);

/// Kinds of frames.
pub mod kind {
    /// A piece of a body.
    pub const DATA: u8 = 0;
    /// A request's head.
    pub const HEADERS: u8 = 1;
    /// The end of a stream.
    pub const RST_STREAM: u8 = 3;
    /// What a side expects.
    pub const SETTINGS: u8 = 4;
    /// A question whether one is there.
    pub const PING: u8 = 6;
    /// Room for more bytes.
    pub const WINDOW_UPDATE: u8 = 8;
    /// More of a head.
    pub const CONTINUATION: u8 = 9;
}

/// Of SETTINGS and PING: it is an answer.
pub const ACK: u8 = 1;
/// Of HEADERS: the request has no body.
pub const END_STREAM: u8 = 1;
/// Of HEADERS and CONTINUATION: the head is complete.
pub const END_HEADERS: u8 = 4;

impl Raw {
    /// Connects, and says nothing.
    ///
    /// # Panics
    /// If that fails.
    #[must_use]
    pub fn connect(address: SocketAddr) -> Raw {
        let stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        stream.set_write_timeout(Some(PATIENCE)).expect("a socket");
        Raw(stream)
    }

    /// Connects and greets, with these settings.
    ///
    /// # Panics
    /// If that fails.
    #[must_use]
    pub fn greet(address: SocketAddr, settings: &[(u16, u32)]) -> Raw {
        let mut raw = Raw::connect(address);
        let payload: Vec<u8> = settings
            .iter()
            .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        raw.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").expect("it reads");
        raw.send(&frame(kind::SETTINGS, 0, 0, &payload)).expect("it reads");
        raw
    }

    /// Waits for the other side's greeting and agrees: only then is there room for more than the 64 KiB
    /// that the protocol begins with.
    pub fn settle(&mut self) {
        self.read_until(|frame| frame.kind == kind::WINDOW_UPDATE && frame.stream == 0);
        self.send(&frame(kind::SETTINGS, ACK, 0, &[])).expect("it reads");
    }

    /// Reads frames up to the first of which this is true, and gives all of them.
    ///
    /// # Panics
    /// If none comes.
    pub fn read_until(&mut self, is_last: impl Fn(&Frame) -> bool) -> Vec<Frame> {
        let mut frames = Vec::new();
        loop {
            let frame = self.read_frame();
            let last = is_last(&frame);
            frames.push(frame);
            if last {
                return frames;
            }
        }
    }

    /// Has the other side look at all that was sent, and gives the frames that came meanwhile.
    pub fn round_trip(&mut self) -> Vec<Frame> {
        self.send(&frame(kind::PING, 0, 0, &[7; 8])).expect("it reads");
        self.read_until(|frame| frame.kind == kind::PING && frame.flags == ACK)
    }

    fn read_frame(&mut self) -> Frame {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).expect("a frame");
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.0.read_exact(&mut payload).expect("the whole frame");
        Frame { kind, flags, stream: u32::from_be_bytes(stream), payload }
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// The other side has closed.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    /// Sends the same again and again until the other side closes, and says how often.
    ///
    /// # Panics
    /// If it does not close after `most` times.
    pub fn flood(&mut self, bytes: &[u8], most: usize) -> usize {
        // Answers are read, so that the other side is not stopped by that.
        let mut reader = self.0.try_clone().expect("a descriptor");
        let reading = std::thread::spawn(move || io::copy(&mut reader, &mut io::sink()));
        // What was sent last may not have been read yet; then the end is found by reading alone.
        let sent = (0..most).find(|_| self.send(bytes).is_err()).unwrap_or(most);
        let ended = reading.join().expect("it does not panic");
        let timed_out = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
        assert!(!ended.as_ref().is_err_and(timed_out), "it was not closed after {sent} times");
        sent
    }

    /// Reads until the other side closes.
    ///
    /// # Panics
    /// If it does not.
    pub fn wait_for_end(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.0.read_to_end(&mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => panic!("it is not closed"),
            // Closed in whatever way.
            _ => bytes,
        }
    }
}

/// A frame.
///
/// # Panics
/// If the payload is larger than a frame.
#[must_use]
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).expect("a size").to_be_bytes();
    let head = [&size[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [head.as_slice(), payload].concat()
}

/// A header block of `POST path`, in literals.
///
/// # Panics
/// If the path has more than 126 bytes.
#[must_use]
pub fn post_block(path: &str) -> Vec<u8> {
    let size = u8::try_from(path.len()).expect("a short path");
    assert!(size < 127, "a longer path needs a longer length");
    // The static table's `:method: POST` and `:scheme: http`; literals of `:path` and `:authority`.
    [&[0x83, 0x86, 0x04, size][..], path.as_bytes(), &[0x01, 1, b't']].concat()
}
