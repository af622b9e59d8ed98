//! Descriptors: one form for each message, and nothing else decodes.
#![cfg(not(loom))]
#![allow(missing_docs, clippy::unwrap_used, clippy::cast_possible_truncation)]

use std::num::NonZeroU32;

use ipc::{Block, CallId, Descriptor, DescriptorError, Outcome, Region, ToEngine, ToWorker, Usage};
use proptest::prelude::*;

fn block(region: impl Strategy<Value = Region>) -> impl Strategy<Value = Block> {
    (region, any::<u64>(), any::<u32>(), any::<u32>()).prop_map(
        |(region, offset, envelope_size, payload_size)| Block {
            region,
            offset,
            envelope_size,
            payload_size,
        },
    )
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop::sample::select(&Outcome::ALL[..])
}

fn usage() -> impl Strategy<Value = Option<Usage>> {
    let usage = |(calls, cpu_ns, idle_ns)| {
        NonZeroU32::new(calls).map(|calls| Usage { calls, cpu_ns, idle_ns })
    };
    any::<(u32, u32, u32)>().prop_map(usage)
}

fn to_worker() -> impl Strategy<Value = ToWorker> {
    let inbound = || block(prop_oneof![Just(Region::Small), Just(Region::Large)]);
    prop_oneof![
        (any::<u64>(), any::<u16>(), any::<u64>(), any::<u32>(), inbound()).prop_map(
            |(call, depth, deadline_ns, results_read, block)| ToWorker::Dispatch {
                call: CallId(call),
                depth,
                deadline_ns,
                results_read,
                block
            }
        ),
        (any::<u32>(), outcome(), inbound()).prop_map(|(token, outcome, block)| ToWorker::Answer {
            token,
            outcome,
            block
        }),
        any::<u64>().prop_map(|call| ToWorker::Cancel { call: CallId(call) }),
        Just(ToWorker::Retire),
    ]
}

fn to_engine() -> impl Strategy<Value = ToEngine> {
    let outbound = || block(Just(Region::Outbound));
    prop_oneof![
        Just(ToEngine::Started),
        (any::<u32>(), any::<u64>(), any::<Option<u32>>(), outbound()).prop_map(
            |(token, deadline_ns, released, block)| ToEngine::Call {
                token,
                deadline_ns,
                released,
                block
            }
        ),
        (any::<u64>(), outcome(), any::<Option<u32>>(), any::<u32>(), usage(), outbound())
            .prop_map(|(call, outcome, released, ran_ns, usage, block)| ToEngine::Complete {
                call: CallId(call),
                outcome,
                released,
                ran_ns,
                usage,
                block
            }),
        any::<u64>().prop_map(|call| ToEngine::Decline { call: CallId(call) }),
        any::<u32>().prop_map(|token| ToEngine::Release { token }),
        Just(ToEngine::Retired),
    ]
}

proptest! {
    #[test]
    fn what_an_engine_says_arrives(message in to_worker()) {
        prop_assert_eq!(ToWorker::decode(&message.encode()), Ok(message));
        prop_assert!(ToEngine::decode(&message.encode()).is_err());
    }

    #[test]
    fn what_a_worker_says_arrives(message in to_engine()) {
        prop_assert_eq!(ToEngine::decode(&message.encode()), Ok(message));
        prop_assert!(ToWorker::decode(&message.encode()).is_err());
    }

    #[test]
    fn a_message_has_one_form_only(message in to_engine(), word in 0usize..8, bit in 0u32..64) {
        let mut words = message.encode().0;
        words[word] ^= 1 << bit;
        if let Ok(other) = ToEngine::decode(&Descriptor(words)) {
            prop_assert_ne!(other, message);
            prop_assert_eq!(other.encode().0, words);
        }
    }

    #[test]
    fn random_words_never_panic(
        kind in any::<u8>(), words in any::<[u64; 8]>()
    ) {
        let mut words = words;
        words[0] = words[0] & !0xff | u64::from(kind);
        let _ = ToEngine::decode(&Descriptor(words));
        let _ = ToWorker::decode(&Descriptor(words));
    }
}

#[test]
fn a_bad_field_is_named() {
    let decode = |word: u64| ToEngine::decode(&Descriptor([word, 0, 0, 0, 0, 0, 0, 0]));
    assert_eq!(decode(0), Err(DescriptorError::Kind(0)));
    assert_eq!(decode(1), Err(DescriptorError::Kind(1)));
    assert_eq!(decode(0xff), Err(DescriptorError::Kind(0xff)));
    assert_eq!(decode(0x00_00_83), Err(DescriptorError::Region(0)));
    assert_eq!(decode(0x03_00_83), Err(DescriptorError::Region(3)));
    let unknown = (Outcome::ALL.len() as u64) << 8;
    assert!(matches!(decode(0x02_00_83 | unknown), Err(DescriptorError::Outcome(_))));
    assert_eq!(decode(0x01_00_85), Err(DescriptorError::NotCanonical { kind: 0x85 }));
    assert_eq!(CallId::new(7, 9).slot(), 7);
    assert_eq!(CallId::new(7, 9).generation(), 9);
}
