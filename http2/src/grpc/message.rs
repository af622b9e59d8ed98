//! The frame of a gRPC message: a byte that says whether it is compressed, four of its size, and
//! the message. A unary call has exactly one each way.

/// Bytes before a message.
pub const PREFIX_SIZE: usize = 5;

/// What a request's body is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageFault {
    /// The stream ended without one.
    #[error("the request has no message")]
    None,
    /// The stream ended within one.
    #[error("the request ends within a message")]
    Cut,
    /// There is something behind the first one.
    #[error("only calls of one message are served here, and this one has more")]
    Several,
    /// It is compressed.
    #[error("compressed messages are not understood here")]
    Compressed,
    /// The byte that says so is neither 0 nor 1.
    #[error("the flags of the message are unknown")]
    Flags,
}

/// Takes the prefix off the one message of a whole body.
///
/// # Errors
/// It is not one message.
pub fn strip(mut body: Vec<u8>) -> Result<Vec<u8>, MessageFault> {
    let size = match body.first_chunk::<PREFIX_SIZE>() {
        None if body.is_empty() => return Err(MessageFault::None),
        None => return Err(MessageFault::Cut),
        Some(prefix) => size_of(prefix)?,
    };
    match (body.len() - PREFIX_SIZE).cmp(&size) {
        std::cmp::Ordering::Less => Err(MessageFault::Cut),
        std::cmp::Ordering::Greater => Err(MessageFault::Several),
        std::cmp::Ordering::Equal => {
            body.drain(..PREFIX_SIZE);
            Ok(body)
        }
    }
}

/// What the beginning of a body shows already, so that a stream that goes on is not waited for.
///
/// # Errors
/// What can become no unary call.
pub fn glance(body: &[u8]) -> Result<(), MessageFault> {
    let Some(prefix) = body.first_chunk::<PREFIX_SIZE>() else { return Ok(()) };
    let size = size_of(prefix)?;
    if body.len() - PREFIX_SIZE > size { Err(MessageFault::Several) } else { Ok(()) }
}

/// The prefix of a message of this size; none if no prefix can tell it.
#[must_use]
pub fn prefix(size: usize) -> Option<[u8; PREFIX_SIZE]> {
    let [a, b, c, d] = u32::try_from(size).ok()?.to_be_bytes();
    Some([0, a, b, c, d])
}

fn size_of(prefix: &[u8; PREFIX_SIZE]) -> Result<usize, MessageFault> {
    let [flags, size @ ..] = *prefix;
    match flags {
        0 => Ok(u32::from_be_bytes(size) as usize),
        1 => Err(MessageFault::Compressed),
        _ => Err(MessageFault::Flags),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_message_loses_its_prefix_and_gets_it_back() {
        for message in [b"".as_slice(), b"x", &[7; 70_000]] {
            let mut body = prefix(message.len()).unwrap().to_vec();
            body.extend_from_slice(message);
            assert_eq!(strip(body).as_deref(), Ok(message));
        }
    }

    #[test]
    fn what_is_not_one_plain_message_is_told_apart() {
        for (body, fault) in [
            (b"".as_slice(), MessageFault::None),
            (&[0, 0, 0], MessageFault::Cut),
            (&[0, 0, 0, 0, 2, 9], MessageFault::Cut),
            (&[0, 0, 0, 0, 1, 9, 0], MessageFault::Several),
            (&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0], MessageFault::Several),
            (&[1, 0, 0, 0, 1, 9], MessageFault::Compressed),
            (&[2, 0, 0, 0, 1, 9], MessageFault::Flags),
        ] {
            assert_eq!(strip(body.to_vec()), Err(fault), "{body:?}");
        }
    }

    proptest! {
        #[test]
        fn a_glance_never_refuses_what_is_accepted_whole(
            body in proptest::collection::vec(any::<u8>(), 0..32),
        ) {
            if strip(body.clone()).is_ok() {
                for end in 0..=body.len() {
                    prop_assert_eq!(glance(&body[..end]), Ok(()));
                }
            }
        }
    }
}
