//! Damaged stored forms: a fault, or the right document; never anything else.

use state_cache_delta::{Decoder, Fault, Header};
use state_cache_document::hash;

use crate::fuzz::seal;
use crate::history::histories;
use crate::random::Random;
use crate::store::{Row, Store};

/// A history of keyframes and deltas, small enough to damage everywhere.
fn small() -> (Store, Vec<Vec<u8>>) {
    let documents = histories(&mut Random(11), 12).swap_remove(0).1;
    let mut store = Store::new(3);
    for (version, document) in (1..).zip(&documents) {
        store.save(version, document, 4);
    }
    (store, documents)
}

/// Every version of the store is read as what it was, or refused, by the decoder or for its hash.
fn check(store: &Store, documents: &[Vec<u8>], damaged: i64, resealed: bool) {
    let mut decoder = Decoder::new().unwrap();
    for (version, document) in (1..).zip(documents) {
        let read = store.read(&mut decoder, version);
        if version < damaged {
            assert!(read.as_ref() == Ok(document), "version {version}, sound");
        } else if let Ok(read) = read {
            let right = read == *document;
            assert!(
                resealed || right,
                "version {version} decoded to another document"
            );
            assert!(
                right || hash(&read) != hash(document),
                "version {version}: same hash"
            );
        }
    }
}

fn packed(store: &Store) -> Vec<(i64, Vec<u8>)> {
    let packed = |version: &i64| Some((*version, store.packed(*version)?.to_vec()));
    store.rows.keys().filter_map(packed).collect()
}

#[test]
fn a_flipped_byte_is_seen() {
    let (mut store, documents) = small();
    let forms = packed(&store);
    assert!(forms.len() >= 10);
    for (version, sound) in forms {
        for at in 0..sound.len() {
            for flip in [0x01, 0x80, 0xFF] {
                let mut bad = sound.clone();
                bad[at] ^= flip;
                let fault = Decoder::new().unwrap().decode(&bad, Some(&documents[0]));
                assert!(fault.is_err(), "version {version}, byte {at}");
                store.rows.insert(version, Row::Packed(bad.clone()));
                check(&store, &documents, version, false);
                // As somebody would who knows the format: only the document's hash is left.
                if at + 4 < sound.len() {
                    seal(&mut bad);
                    store.rows.insert(version, Row::Packed(bad));
                    check(&store, &documents, version, true);
                }
            }
        }
        store.rows.insert(version, Row::Packed(sound));
    }
}

#[test]
fn a_cut_form_is_seen() {
    let (store, documents) = small();
    let mut decoder = Decoder::new().unwrap();
    for (version, sound) in packed(&store) {
        let base = Header::read(&sound).unwrap().base_version(version).unwrap();
        let base = base.map(|base| documents[usize::try_from(base).unwrap() - 1].as_slice());
        assert!(decoder.decode(&sound, base).is_ok());
        for end in 0..sound.len() {
            let mut cut = sound[..end].to_vec();
            assert!(
                decoder.decode(&cut, base).is_err(),
                "version {version}, {end} bytes"
            );
            if end > 4 {
                seal(&mut cut);
                assert!(
                    decoder.decode(&cut, base).is_err(),
                    "version {version}, {end} bytes, sealed"
                );
            }
        }
        let mut longer = [&sound[..], &[0; 4]].concat();
        seal(&mut longer);
        assert_eq!(
            decoder.decode(&longer, base),
            Err(Fault::Corrupt),
            "version {version}"
        );
    }
}

/// A wrong base is not the decoder's to see: it gives a fault or another document, which has another hash.
#[test]
fn a_wrong_base_is_caught_by_the_hash() {
    let (store, documents) = small();
    let mut decoder = Decoder::new().unwrap();
    let mut decoded = 0;
    for (version, sound) in packed(&store) {
        let header = Header::read(&sound).unwrap();
        let Some(right) = header.base_version(version).unwrap() else {
            continue;
        };
        let document = &documents[usize::try_from(version).unwrap() - 1];
        assert_eq!(decoder.decode(&sound, None), Err(Fault::MissingBase));
        let mut wrong = documents[usize::try_from(right).unwrap() - 1].clone();
        for at in 0..wrong.len() {
            wrong[at] ^= 0x55;
            if let Ok(read) = decoder.decode(&sound, Some(&wrong)) {
                decoded += usize::from(read != *document);
                assert_eq!(hash(&read) == hash(document), read == *document);
            }
            wrong[at] ^= 0x55;
        }
        for other in documents.iter().filter(|other| **other != wrong) {
            if let Ok(read) = decoder.decode(&sound, Some(other)) {
                assert_ne!(hash(&read), hash(document));
            }
        }
    }
    assert!(
        decoded > 100,
        "no wrong base went unseen by the decoder: {decoded}"
    );
}
