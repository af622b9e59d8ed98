//! What is left of a body when its request is answered already. It is read on for a while: to reset
//! the stream at once would be correct, but some clients who still send take that for a failure and
//! lose the answer that they got before.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body::Body;

/// Bytes that are read, as many as over HTTP/1.1. A larger rest is not worth it.
const REST_MAX: usize = 64 * 1024;
/// How long it may take. Its stream counts among the client's as long, so a client has no more of
/// them than it may have streams.
const REST_TIME: Duration = Duration::from_secs(5);

/// How long the stream stays behind a larger one, with its window closed: so much time has a client to
/// find the answer and to end the stream itself.
const OVERSIZE_TIME: Duration = Duration::from_secs(1);

enum Rest {
    /// All of it came, or its client reset it.
    Over,
    /// More than is read.
    Oversize,
}

/// Reads the rest of a body, within limits. Over either the stream is reset, when the body is dropped.
pub async fn discard<B>(mut body: B)
where
    B: Body<Data = Bytes> + Unpin,
{
    let rest = async {
        let mut left = REST_MAX;
        // Each turn ends a frame of which the client may send only so many (`census`).
        while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let size = frame.data_ref().map_or(0, Buf::remaining);
            match left.checked_sub(size) {
                Some(less) => left = less,
                None => return Rest::Oversize,
            }
        }
        Rest::Over
    };
    if let Ok(Rest::Oversize) = tokio::time::timeout(REST_TIME, rest).await {
        tokio::time::sleep(OVERSIZE_TIME).await;
    }
}
