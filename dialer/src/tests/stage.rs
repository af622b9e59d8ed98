//! A dialer, and gateways that answer as they are told.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use engine::uplink::Notice;
use protocol::hello::{Challenge, Hello, Key};
use protocol::{LinkError, VERSION, handshake};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::{Dialer, Dialled, Settings, Trust};

/// Far longer than anything takes here.
const PATIENCE: Duration = Duration::from_secs(30);
/// The instance of most gateways.
pub(super) const GATEWAY: u64 = 77;
/// The keys of all engines, and that of somebody else.
pub(super) const KEY: u8 = 5;
pub(super) const OTHER_KEY: u8 = 6;

pub(super) fn key(byte: u8) -> Option<Key> {
    Some(Key::new(vec![byte; 32]).unwrap())
}

/// What comes, unless it never does.
pub(super) async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("it comes")
}

pub(super) fn settings(
    shards: u16,
    gateways: &[String],
    resolver: Option<SocketAddr>,
    trust: Trust,
) -> Settings {
    Settings {
        gateways: gateways.iter().map(|name| name.parse().unwrap()).collect(),
        resolver,
        trust,
        node: "host-1".to_owned(),
        shards,
        cores: shards,
    }
}

pub(super) struct Stage {
    dialer: Option<Dialer>,
    delivered: mpsc::UnboundedReceiver<Dialled>,
}

impl Stage {
    pub(super) fn start(shards: u16, gateways: &[String]) -> Stage {
        let trust = Trust::SharedKey(key(KEY).unwrap());
        Stage::of(settings(shards, gateways, None, trust))
    }

    pub(super) fn resolving(shards: u16, gateways: &[String], resolver: SocketAddr) -> Stage {
        let trust = Trust::SharedKey(key(KEY).unwrap());
        Stage::of(settings(shards, gateways, Some(resolver), trust))
    }

    pub(super) fn trusting(trust: Trust, gateways: &[String]) -> Stage {
        Stage::of(settings(1, gateways, None, trust))
    }

    fn of(settings: Settings) -> Stage {
        let (sender, delivered) = mpsc::unbounded_channel();
        let dialer = Dialer::start(settings, move |dialled| drop(sender.send(dialled))).unwrap();
        Stage { dialer: Some(dialer), delivered }
    }

    pub(super) async fn delivered(&mut self) -> Dialled {
        within(self.delivered.recv()).await.expect("the dialer runs")
    }

    pub(super) fn nothing_delivered(&self) -> bool {
        self.delivered.is_empty()
    }

    pub(super) fn tell(&self, notice: Notice) {
        self.dialer.as_ref().unwrap().line().tell(notice);
    }

    pub(super) fn stop(&mut self) {
        self.dialer = None;
    }
}

pub(super) struct Gateway {
    pub(super) listener: TcpListener,
    nonce: AtomicU8,
}

impl Gateway {
    pub(super) async fn bind(address: &str) -> Gateway {
        let listener = TcpListener::bind(address).await.unwrap();
        Gateway { listener, nonce: AtomicU8::new(0) }
    }

    pub(super) fn name(&self) -> String {
        self.listener.local_addr().unwrap().to_string()
    }

    pub(super) fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }

    pub(super) async fn accept(&self) -> TcpStream {
        within(self.listener.accept()).await.unwrap().0
    }

    /// Answers the next engine as a gateway of so many shards.
    pub(super) async fn answer(&self, shards: u16) -> Result<(TcpStream, Hello), LinkError> {
        self.answer_as(GATEWAY, shards).await
    }

    pub(super) async fn answer_as(
        &self,
        instance: u64,
        shards: u16,
    ) -> Result<(TcpStream, Hello), LinkError> {
        self.answer_with(key(KEY), instance, shards).await
    }

    pub(super) async fn answer_with(
        &self,
        key: Option<Key>,
        instance: u64,
        shards: u16,
    ) -> Result<(TcpStream, Hello), LinkError> {
        let mut stream = self.accept().await;
        let (_, hello) = self.prove(&mut stream, key, instance, shards).await?;
        Ok((stream, hello))
    }

    pub(super) async fn prove<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
        key: Option<Key>,
        instance: u64,
        shards: u16,
    ) -> Result<(Challenge, Hello), LinkError> {
        let nonce = [self.nonce.fetch_add(1, Ordering::Relaxed); 32];
        let challenge = Challenge { version: VERSION, shards, instance, nonce };
        let hello = within(handshake::answer(stream, &challenge, key.as_ref())).await?;
        Ok((challenge, hello))
    }
}
