//! Damaged documents are refused, or give a patch within the bounds of a sound one.

use serde_json::json;
use state_cache_document::DocumentError::{self, Damaged};
use state_cache_document::diff;
use state_cache_histories::{Random, encode, history};

use crate::{largest, no_guard, tree};

/// The patch between what may be damaged: within bounds, or refused.
fn exercise(from: &[u8], to: &[u8]) -> Result<(), DocumentError> {
    let patch = diff(from, to, no_guard)?;
    assert!(
        patch.len() <= largest(to),
        "{} bytes for {}",
        patch.len(),
        to.len()
    );
    Ok(())
}

fn flipped(random: &mut Random, payload: &[u8]) -> Vec<u8> {
    let mut bytes = payload.to_vec();
    for _ in 0..=random.below(4) {
        // Headers and entries lie at the front: most flips go there.
        let reach = if random.below(4) > 0 {
            bytes.len().min(200)
        } else {
            bytes.len()
        };
        bytes[random.below(reach)] ^= 1 << random.below(8);
    }
    bytes
}

#[test]
fn flipped_bits_neither_panic_nor_grow() {
    let mut random = Random::new(4);
    let mut refused = 0;
    for seed in 0..330 {
        for two in history(seed, 8).windows(2) {
            let (from, to) = (encode(&two[0]).unwrap(), encode(&two[1]).unwrap());
            let damaged = flipped(&mut random, &from);
            for (from, to) in [
                (&damaged, &to),
                (&to, &damaged),
                (&from, &damaged),
                (&flipped(&mut random, &damaged), &damaged),
            ] {
                match exercise(from, to) {
                    Ok(()) => {}
                    Err(Damaged) => refused += 1,
                    Err(other) => panic!("{other:?}"),
                }
            }
        }
    }
    assert!(refused > 2_000, "{refused}");
}

#[test]
fn every_flipped_byte_of_a_pair_is_met() {
    let versions = history(10, 2);
    let from = encode(&tree(
        &json!({"a": [1, {"b": "c", "d": []}], "e": 2.5, "f": "text"}),
    ))
    .unwrap();
    let to = encode(&versions[1]).unwrap();
    for at in 0..from.len() {
        for bit in 0..8 {
            let mut damaged = from.clone();
            damaged[at] ^= 1 << bit;
            for (from, to) in [
                (&damaged, &to),
                (&to, &damaged),
                (&from, &damaged),
                (&damaged, &from),
            ] {
                assert!(matches!(exercise(from, to), Ok(()) | Err(Damaged)));
            }
        }
    }
}

#[test]
fn bytes_behind_the_last_element_are_damage() {
    let sound = encode(&tree(&json!([[true]]))).unwrap();
    let mut longer = sound.clone();
    longer.extend([0; 4]);
    // The entry of the inner array: a container that ends 12 bytes into the data instead of 8.
    longer[4..8].copy_from_slice(&0xD000_000C_u32.to_ne_bytes());
    assert_eq!(exercise(&longer, &sound), Err(Damaged));
    assert_eq!(exercise(&sound, &longer), Err(Damaged));
}

#[test]
fn cut_bytes_and_noise_neither_panic_nor_grow() {
    let mut random = Random::new(5);
    let sound = encode(&tree(&json!({"a": {"b": [1, 2]}, "c": [[]]}))).unwrap();
    for cut in 0..sound.len() {
        assert_eq!(exercise(&sound[..cut], &sound), Err(Damaged), "{cut}");
        assert_eq!(exercise(&sound, &sound[..cut]), Err(Damaged), "{cut}");
    }
    let noise = |random: &mut Random| -> Vec<u8> {
        let words = 1 + random.below(30);
        let words = (0..words).flat_map(|_| {
            // Small fields look like headers and entries more often than noise does.
            let field = random.draw() & random.pick([0x3, 0xF, 0x3F, 0x0FFF_FFFF]);
            let flags = random.draw() & 0xF000_0000;
            u32::try_from(flags | field).unwrap().to_ne_bytes()
        });
        words.collect()
    };
    for _ in 0..30_000 {
        let (from, to) = (noise(&mut random), noise(&mut random));
        for (from, to) in [(&from, &to), (&sound, &to), (&from, &sound)] {
            assert!(matches!(exercise(from, to), Ok(()) | Err(Damaged)));
        }
    }
}
