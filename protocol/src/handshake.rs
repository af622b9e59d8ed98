//! The handshake over a connection, TLS or not, on a thread that is not a shard's. The caller bounds its
//! time.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::error::{LinkError, ProtocolError};
use crate::frame::{HEAD_SIZE, Head, Kind, Part};
use crate::hello::{Challenge, Hello, Key, Prover};
use crate::message::{encode_reason, parse_reason};

/// Bytes of a handshake's message at most: what a stranger can make us read.
const MESSAGE_MAX: usize = 512;

/// Dials: says hello, and learns who answers.
///
/// # Errors
/// When the other side refuses, does not have the key, or breaks the protocol.
pub async fn dial<S>(
    stream: &mut S,
    hello: &Hello,
    key: Option<&Key>,
) -> Result<Challenge, LinkError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let said = hello.encode();
    write(stream, Kind::Hello, &said).await?;
    let asked = read(stream, Kind::Challenge).await?;
    let challenge = Challenge::parse(&asked)?;
    let proof = key.map(|key| key.prove(Prover::Engine, &said, &asked));
    write(stream, Kind::Proof, proof.as_ref().map_or(&[], |proof| proof)).await?;
    let proof = read(stream, Kind::Welcome).await?;
    check(key, Prover::Gateway, &said, &asked, &proof)?;
    Ok(challenge)
}

/// Answers one who dials: `challenge` has a fresh nonce.
///
/// # Errors
/// When the other side does not have the key, or breaks the protocol. It is told the reason, but for
/// what it could not prove.
pub async fn answer<S>(
    stream: &mut S,
    challenge: &Challenge,
    key: Option<&Key>,
) -> Result<Hello, LinkError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match answer_or_fail(stream, challenge, key).await {
        Err(LinkError::Protocol(error)) => {
            // Who is gone need not be told.
            let _ = write(stream, Kind::Bye, encode_reason(&error.to_string())).await;
            Err(error.into())
        }
        result => result,
    }
}

async fn answer_or_fail<S>(
    stream: &mut S,
    challenge: &Challenge,
    key: Option<&Key>,
) -> Result<Hello, LinkError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let said = read(stream, Kind::Hello).await?;
    let hello = Hello::parse(&said)?;
    let asked = challenge.encode();
    write(stream, Kind::Challenge, &asked).await?;
    let proof = read(stream, Kind::Proof).await?;
    check(key, Prover::Engine, &said, &asked, &proof)?;
    let proof = key.map(|key| key.prove(Prover::Gateway, &said, &asked));
    write(stream, Kind::Welcome, proof.as_ref().map_or(&[], |proof| proof)).await?;
    Ok(hello)
}

fn check(
    key: Option<&Key>,
    who: Prover,
    hello: &[u8],
    challenge: &[u8],
    proof: &[u8],
) -> Result<(), ProtocolError> {
    match key {
        Some(key) => key.check(who, hello, challenge, proof),
        None if proof.is_empty() => Ok(()),
        None => Err(ProtocolError::Unproven),
    }
}

async fn write<S: AsyncWrite + Unpin>(stream: &mut S, kind: Kind, body: &[u8]) -> io::Result<()> {
    let head = Head { size: body.len(), kind, part: Part::Last, stream: 0 };
    let bytes = [&head.encode()[..], body].concat();
    stream.write_all(&bytes).await?;
    stream.flush().await
}

async fn read<S: AsyncRead + Unpin>(stream: &mut S, kind: Kind) -> Result<Vec<u8>, LinkError> {
    let mut head = [0; HEAD_SIZE];
    stream.read_exact(&mut head).await?;
    let head = Head::parse(&head)?;
    crate::message::check_count("bytes of a handshake's message", head.size, MESSAGE_MAX)?;
    let mut body = vec![0; head.size];
    stream.read_exact(&mut body).await?;
    match head.kind {
        Kind::Bye => Err(LinkError::Bye(parse_reason(&body))),
        got if got == kind && head.part == Part::Last && head.stream == 0 => Ok(body),
        got => Err(ProtocolError::Unexpected(got.name()).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hello::VERSION;

    fn hello() -> Hello {
        Hello {
            version_min: VERSION,
            version_max: VERSION,
            node: "host-1".into(),
            instance: 7,
            epoch: 3,
            connection: 1,
            shards: 2,
            cores: 2,
            nonce: [1; 32],
        }
    }

    fn challenge(nonce: u8) -> Challenge {
        Challenge { version: VERSION, shards: 2, instance: 9, nonce: [nonce; 32] }
    }

    fn key(byte: u8) -> Key {
        Key::new(vec![byte; 32]).unwrap()
    }

    async fn meet(
        dialler: Option<Key>,
        gateway: Option<Key>,
    ) -> (Result<Challenge, LinkError>, Result<Hello, LinkError>) {
        let (mut a, mut b) = tokio::io::duplex(4096);
        let (hello, challenge) = (hello(), challenge(2));
        let dialling = async {
            let result = dial(&mut a, &hello, dialler.as_ref()).await;
            drop(a);
            result
        };
        let answering = async {
            let result = answer(&mut b, &challenge, gateway.as_ref()).await;
            drop(b);
            result
        };
        tokio::join!(dialling, answering)
    }

    #[tokio::test]
    async fn two_that_have_the_key_know_each_other() {
        let (dialled, answered) = meet(Some(key(5)), Some(key(5))).await;
        assert_eq!(dialled.unwrap(), challenge(2));
        assert_eq!(answered.unwrap(), hello());
        let (dialled, answered) = meet(None, None).await;
        assert!(dialled.is_ok() && answered.is_ok());
    }

    #[tokio::test]
    async fn without_the_key_nobody_gets_in() {
        for (dialler, gateway) in
            [(Some(key(5)), Some(key(6))), (None, Some(key(6))), (Some(key(5)), None)]
        {
            let (dialled, answered) = meet(dialler, gateway).await;
            assert!(matches!(answered, Err(LinkError::Protocol(ProtocolError::Unproven))));
            assert!(matches!(dialled, Err(LinkError::Bye(_))), "{dialled:?}");
        }
    }

    #[tokio::test]
    async fn a_recorded_handshake_proves_nothing_to_a_fresh_nonce() {
        let (hello, first, second) =
            (hello().encode(), challenge(2).encode(), challenge(3).encode());
        let recorded = key(5).prove(Prover::Engine, &hello, &first);
        assert!(key(5).check(Prover::Engine, &hello, &first, &recorded).is_ok());
        assert!(key(5).check(Prover::Engine, &hello, &second, &recorded).is_err());
        assert!(key(5).check(Prover::Gateway, &hello, &first, &recorded).is_err());
    }

    /// What a gateway makes of these bytes, and what it says to it.
    async fn answered(bytes: &[u8]) -> (LinkError, Vec<u8>) {
        let (mut stranger, mut gateway) = tokio::io::duplex(4096);
        stranger.write_all(bytes).await.unwrap();
        let error = answer(&mut gateway, &challenge(2), Some(&key(5))).await.unwrap_err();
        drop(gateway);
        let mut said = Vec::new();
        stranger.read_to_end(&mut said).await.unwrap();
        (error, said)
    }

    #[tokio::test]
    async fn a_stranger_is_told_why_and_hears_nothing_else() {
        let frame = |kind, stream, body: &[u8]| {
            let head = Head { size: body.len(), kind, part: Part::Last, stream };
            [&head.encode()[..], body].concat()
        };
        let hello = hello().encode();
        let strangers = [
            frame(Kind::Hello, 0, &[0; MESSAGE_MAX + 1]),
            frame(Kind::Hello, 1, &hello),
            frame(Kind::Call, 0, &hello),
            frame(Kind::Hello, 0, b"GET / HTTP/1.1"),
            b"GET / HTTP/1.1\r\nhost: gateway\r\n\r\n".to_vec(),
        ];
        for bytes in strangers {
            let (error, said) = answered(&bytes).await;
            let LinkError::Protocol(error) = error else { panic!("{error:?}") };
            assert_eq!(said, frame(Kind::Bye, 0, error.to_string().as_bytes()));
        }
        // Who proves himself first, before he was asked, has not heard the nonce.
        let early = [frame(Kind::Hello, 0, &hello), frame(Kind::Proof, 0, &[0; 32])].concat();
        let (error, said) = answered(&early).await;
        assert!(matches!(error, LinkError::Protocol(ProtocolError::Unproven)), "{error:?}");
        let asked = frame(Kind::Challenge, 0, &challenge(2).encode());
        assert!(said.starts_with(&asked) && said[asked.len() + 4] == Kind::Bye as u8);
    }
}
