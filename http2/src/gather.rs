//! A request's body, gathered: bounded in size, in time and in memory.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use gateway::intake::Fault;
use http_body::Body;

use crate::grpc::message::{self, MessageFault};
use crate::ledger::{Client, Hold, Side};

/// What a body is gathered by.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Bytes at most.
    pub max: usize,
    /// Between two pieces at most.
    pub pause: Duration,
    /// The end, if the client named one.
    pub deadline: Option<Instant>,
    /// What it has to be.
    pub shape: Shape,
}

/// What a body has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Anything.
    Any,
    /// One message of gRPC.
    Message,
}

/// Why a body is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GatherFault {
    /// It breaks a limit.
    Limit(Fault),
    /// It is not one message.
    Message(MessageFault),
    /// The stream was reset: nobody waits for an answer.
    Reset,
}

/// The whole body, and the memory it takes.
///
/// # Errors
/// It breaks the terms.
pub async fn gather<B>(
    body: &mut B,
    terms: Terms,
    client: &Arc<Client>,
) -> Result<(Vec<u8>, Hold), GatherFault>
where
    B: Body<Data = Bytes> + Unpin,
{
    if body.size_hint().lower() > terms.max as u64 {
        return Err(GatherFault::Limit(Fault::BodyTooLarge));
    }
    let crowded = |_| GatherFault::Limit(Fault::Crowded);
    let mut hold = client.hold(Side::Request, 0).map_err(crowded)?;
    let mut bytes = Vec::new();
    loop {
        let next = poll_fn(|context| Pin::new(&mut *body).poll_frame(context));
        let pause = Instant::now() + terms.pause;
        let end = terms.deadline.map_or(pause, |deadline| deadline.min(pause));
        let frame = match tokio::time::timeout_at(end.into(), next).await {
            Ok(frame) => frame,
            Err(_) if end < pause => return Err(GatherFault::Limit(Fault::NoTimeLeft)),
            Err(_) => return Err(GatherFault::Limit(Fault::TooSlow)),
        };
        let data = match frame {
            None => return Ok((bytes, hold)),
            Some(Err(_)) => return Err(GatherFault::Reset),
            // Trailers of a request say nothing that a function is told.
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => data,
                Err(_) => continue,
            },
        };
        if data.remaining() > terms.max - bytes.len() {
            return Err(GatherFault::Limit(Fault::BodyTooLarge));
        }
        hold.grow(data.remaining()).map_err(crowded)?;
        bytes.extend_from_slice(&data);
        if terms.shape == Shape::Message {
            message::glance(&bytes).map_err(GatherFault::Message)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::task::{Context, Poll};

    use http_body::Frame;

    use super::*;
    use crate::ledger::Ledger;

    /// Pieces, and then the end or nothing.
    struct Pieces(Vec<Bytes>, End);

    #[derive(PartialEq)]
    enum End {
        Here,
        Never,
    }

    impl Body for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            if !self.0.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(self.0.remove(0)))));
            }
            if self.1 == End::Here { Poll::Ready(None) } else { Poll::Pending }
        }
    }

    fn run(pieces: &[&[u8]], end: End, terms: Terms) -> Result<Vec<u8>, GatherFault> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let ledger = Ledger::new(100);
        let member = ledger.join();
        let mut body =
            Pieces(pieces.iter().map(|piece| Bytes::copy_from_slice(piece)).collect(), end);
        let gathered = runtime.block_on(gather(&mut body, terms, member.client()));
        let bytes = gathered.map(|(bytes, hold)| {
            assert_eq!(ledger.held(), bytes.len());
            drop(hold);
            bytes
        });
        assert_eq!(ledger.held(), 0);
        bytes
    }

    fn terms() -> Terms {
        Terms { max: 80, pause: Duration::from_secs(60), deadline: None, shape: Shape::Any }
    }

    #[test]
    fn pieces_become_a_body() {
        assert_eq!(run(&[b"ab", b"", b"c"], End::Here, terms()).as_deref(), Ok(b"abc".as_slice()));
        assert_eq!(run(&[&[1; 80]], End::Here, terms()), Ok(vec![1; 80]));
    }

    #[test]
    fn every_limit_has_its_fault() {
        let limit = |fault| Err(GatherFault::Limit(fault));
        assert_eq!(run(&[&[1; 81]], End::Here, terms()), limit(Fault::BodyTooLarge));
        assert_eq!(run(&[&[1; 40], &[1; 41]], End::Never, terms()), limit(Fault::BodyTooLarge));
        let roomy = Terms { max: 1_000, ..terms() };
        assert_eq!(run(&[&[1; 101]], End::Here, roomy), limit(Fault::Crowded));
        let hasty = Terms { pause: Duration::from_millis(1), ..terms() };
        assert_eq!(run(&[b"a"], End::Never, hasty), limit(Fault::TooSlow));
        let late = Terms { deadline: Some(Instant::now()), ..terms() };
        assert_eq!(run(&[b"a"], End::Never, late), limit(Fault::NoTimeLeft));
    }

    #[test]
    fn a_stream_of_messages_is_not_waited_for() {
        let terms = Terms { shape: Shape::Message, ..terms() };
        let several = Err(GatherFault::Message(MessageFault::Several));
        assert_eq!(run(&[&[0, 0, 0, 0, 1, 7], &[0]], End::Never, terms), several);
        let compressed = Err(GatherFault::Message(MessageFault::Compressed));
        assert_eq!(run(&[&[1, 0, 0, 0, 9]], End::Never, terms), compressed);
    }
}
