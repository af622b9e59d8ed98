//! One connection, from its acceptance to its end.

use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use crate::activity::{Activity, Patience, Prospect};
use crate::config::{
    CONNECTION_WINDOW, Config, DRAIN_GRACE, HEADER_LIST_MAX, LOCAL_RESETS_MAX, PENDING_RESETS_MAX,
    PING_INTERVAL, PING_TIMEOUT, SEND_BUFFER, STREAM_WINDOW,
};
use crate::door::Stage;
use crate::exchange::{Origin, Room, serve};
use crate::ledger::Ledger;
use crate::runtime::{Local, Timer};
use crate::stats::Closing;
use crate::transport::Transport;

/// What all connections share.
pub struct House {
    /// What all requests share.
    pub room: Rc<Room>,
    /// Who holds what.
    pub ledger: Arc<Ledger>,
    /// The limits.
    pub config: Config,
}

/// Serves a connection until it ends.
pub async fn run<S>(
    house: Rc<House>,
    stream: S,
    peer: SocketAddr,
    mut stage: watch::Receiver<Stage>,
) where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let member = house.ledger.join();
    let client = Arc::clone(member.client());
    let activity = Rc::new(Activity::new(Instant::now()));
    let limits = &house.config.gateway;
    let transport = Transport::new(stream, limits.head_timeout, limits.write_timeout);
    let origin = Origin { client: Arc::clone(&client), activity: Rc::clone(&activity), peer };
    let room = Rc::clone(&house.room);
    let service = service_fn(move |request| serve(Rc::clone(&room), origin.clone(), request));
    let mut connection = pin!(builder(&house.config).serve_connection(transport, service));
    let mut patience = Patience { idle: limits.idle_timeout, stalled: limits.write_timeout };
    let mut draining = false;
    let closing = loop {
        if !draining && *stage.borrow_and_update() != Stage::Serving {
            draining = true;
            patience.idle = patience.idle.min(DRAIN_GRACE);
            connection.as_mut().graceful_shutdown();
        }
        let next = match activity.judge(Instant::now(), client.owed(), patience) {
            Prospect::Until(next) => next,
            Prospect::Stalled => break Some(Closing::Stalled),
            Prospect::Idle if draining => break None,
            // Those that are under way still reach it.
            Prospect::Idle => {
                connection.as_mut().graceful_shutdown();
                patience.idle += DRAIN_GRACE;
                draining = true;
                continue;
            }
        };
        // Nothing wakes this loop when an answer begins to wait, so it looks often enough to find one
        // soon after its time.
        let next = next.min(Instant::now() + patience.stalled / 2);
        tokio::select! {
            biased;
            () = client.doom() => break Some(Closing::Memory),
            ended = connection.as_mut() => break ended.err().map(|error| fault(&error)),
            _ = stage.changed(), if !draining => {}
            () = tokio::time::sleep_until(next.into()) => {}
        }
    };
    if let Some(closing) = closing {
        house.room.stats.close(closing);
    }
}

fn fault(error: &hyper::Error) -> Closing {
    tracing::debug!("a connection ended: {error:?}");
    Closing::Fault
}

fn builder(config: &Config) -> Builder<Local> {
    let mut builder = Builder::new(Local);
    builder
        .timer(Timer)
        .max_concurrent_streams(config.streams_max)
        .max_header_list_size(HEADER_LIST_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_local_error_reset_streams(LOCAL_RESETS_MAX)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}
