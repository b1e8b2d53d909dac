//! Every version reads back equal, and the chains keep to their bounds.

use state_cache_delta::{Base, Decoder, Encoder, Error, Form, Header, Kind, Layout};

use crate::history::histories;
use crate::random::Random;
use crate::store::Store;

/// Saves a history under versions with gaps, and returns them.
fn save(store: &mut Store, random: &mut Random, documents: &[Vec<u8>], max_chain: u32) -> Vec<i64> {
    let mut version = 0;
    documents
        .iter()
        .map(|document| {
            version += 1 + i64::try_from(random.below(3) * random.below(200)).unwrap();
            let layout = store.save(version, document, max_chain);
            assert_eq!(store.layout(version), layout);
            version
        })
        .collect()
}

#[test]
fn every_version_reads_back_through_its_chain() {
    let mut random = Random(1);
    let mut decoder = Decoder::new().unwrap();
    for level in [-5, 1, 3, 6, 19] {
        for max_chain in [0, 1, 16, 300] {
            for (name, documents) in histories(&mut random, 40) {
                let mut store = Store::new(level);
                let versions = save(&mut store, &mut random, &documents, max_chain);
                for (version, document) in versions.iter().zip(&documents) {
                    let read = store.read(&mut decoder, *version);
                    assert!(
                        read.as_ref() == Ok(document),
                        "{name}, level {level}, version {version}"
                    );
                }
            }
        }
    }
}

#[test]
fn chains_keep_to_their_bounds() {
    let mut random = Random(2);
    for max_chain in [1, 5, 16, 1_000] {
        for (name, documents) in histories(&mut random, 60) {
            let mut store = Store::new(3);
            let versions = save(&mut store, &mut random, &documents, max_chain);
            let (mut depth, mut keyframe, mut deltas) = (0, 0, 0);
            for version in versions {
                let stored = store.stored_bytes(version);
                let layout = store.layout(version);
                if layout.depth == 0 {
                    (depth, keyframe, deltas) = (0, stored.max(1), 0);
                } else {
                    (depth, deltas) = (depth + 1, deltas + stored);
                }
                assert!(depth <= max_chain.min(255), "{name}");
                assert!(deltas <= 4 * keyframe, "{name}");
                let counted = (
                    layout.depth,
                    layout.keyframe_bytes as usize,
                    layout.delta_bytes as usize,
                );
                assert_eq!(counted, (depth, keyframe, deltas), "{name}");
            }
        }
    }
}

#[test]
fn a_growing_history_takes_little_more_than_its_end() {
    let documents = histories(&mut Random(3), 200).swap_remove(0).1;
    let mut store = Store::new(3);
    for (version, document) in (1..).zip(&documents) {
        store.save(version, document, 16);
    }
    let stored: usize = store
        .rows
        .keys()
        .map(|version| store.stored_bytes(*version))
        .sum();
    let whole: usize = documents.iter().map(Vec::len).sum();
    assert!(stored * 30 < whole, "{stored} of {whole}");
}

#[test]
fn noise_is_stored_whole_and_its_edits_as_deltas() {
    for (name, documents) in histories(&mut Random(4), 30) {
        let mut store = Store::new(3);
        for (version, document) in (1..).zip(&documents) {
            store.save(version, document, 16);
        }
        let packed = store
            .rows
            .keys()
            .filter(|version| store.packed(**version).is_some())
            .count();
        match name {
            "random bytes" | "empty and tiny" => assert_eq!(packed, 0, "{name}"),
            "edited noise" => assert!(packed >= 25 && store.packed(1).is_none(), "{packed}"),
            "growing arrays" | "shrinking" => assert!(packed >= 25, "{name}: {packed}"),
            _ => {}
        }
    }
}

/// The far end of a base of many megabytes is within reach, and what it took is given back.
#[test]
fn large_documents_are_deltas_of_all_of_their_base() {
    let mut random = Random(5);
    let mut encoder = Encoder::new(3).unwrap();
    let mut decoder = Decoder::new().unwrap();
    for megabytes in [1, 9] {
        let base: Vec<u8> = (0..megabytes << 17)
            .flat_map(|_| random.next().to_le_bytes())
            .collect();
        // Its two halves change places, so each match spans half of it.
        let mut document = base.clone();
        document.rotate_left(base.len() / 2 + 3);
        let layout = Layout::keyframe(base.len());
        let upon = Base {
            version: 1,
            document: &base,
            layout,
        };
        let encoded = encoder.encode(&document, 2, Some(upon), 16).unwrap();
        let Form::Packed(packed) = encoded.form else {
            panic!("{megabytes} MiB stored whole");
        };
        assert!(
            packed.len() * 200 < document.len(),
            "{megabytes} MiB: {} bytes",
            packed.len()
        );
        assert!(decoder.decode(&packed, Some(&base)).unwrap() == document);
        assert!(encoder.memory() <= 8 << 20, "{}", encoder.memory());
    }
}

#[test]
fn a_keyframe_needs_no_base() {
    let documents = histories(&mut Random(6), 20).swap_remove(0).1;
    let mut encoder = Encoder::new(3).unwrap();
    let encoded = encoder.encode_keyframe(&documents[19]).unwrap();
    let Form::Packed(packed) = encoded.form else {
        panic!("stored whole");
    };
    assert_eq!(Header::read(&packed).unwrap().kind, Kind::Keyframe);
    assert_eq!(encoded.layout, Layout::keyframe(packed.len()));
    let mut decoder = Decoder::new().unwrap();
    assert_eq!(decoder.decode(&packed, None).as_ref(), Ok(&documents[19]));
    assert_eq!(
        decoder.decode(&packed, Some(b"unneeded")).as_ref(),
        Ok(&documents[19])
    );
}

#[test]
fn a_base_is_of_a_lower_version() {
    let mut encoder = Encoder::new(3).unwrap();
    let layout = Layout::keyframe(9);
    for (version, base) in [(7, 7), (7, 8), (i64::MAX, -1), (i64::MIN, i64::MAX)] {
        let base = Base {
            version: base,
            document: b"base",
            layout,
        };
        assert_eq!(
            encoder.encode(b"document", version, Some(base), 16),
            Err(Error::Order)
        );
    }
}

/// What one document leaves in the context has no effect on the next.
#[test]
fn an_encoder_forgets() {
    let mut random = Random(7);
    let mut used = Encoder::new(3).unwrap();
    for (_, documents) in histories(&mut random, 30) {
        for pair in documents.windows(2) {
            let layout = Layout::keyframe(pair[0].len());
            let base = Base {
                version: 1,
                document: &pair[0],
                layout,
            };
            let fresh = Encoder::new(3).unwrap().encode(&pair[1], 2, Some(base), 16);
            assert!(used.encode(&pair[1], 2, Some(base), 16) == fresh);
        }
    }
}
