//! Mutated stored forms, half of them with their checksum put right so that they reach the decompressor.

use state_cache_delta::{Decoder, Fault, Header};

use crate::history::histories;
use crate::random::Random;
use crate::store::Store;

/// Bytes that a form may decode to for each of its own: a block of zstd, 128 KiB, takes four.
const EXPANSION: usize = (128 << 10) / 4;

/// What a run saw.
#[derive(Debug, Default)]
pub struct Seen {
    pub inputs: u64,
    /// Refused before the decompressor: for the header, the checksum, a size or a missing base.
    pub refused_unread: u64,
    /// Refused by the decompressor.
    pub refused: u64,
    /// Decoded to the document of the seed.
    pub same: u64,
    /// Decoded to something else, which only the hash of the document tells.
    pub other: u64,
}

/// Puts the checksum right.
pub fn seal(packed: &mut [u8]) {
    let (content, checksum) = packed.split_last_chunk_mut::<4>().unwrap();
    checksum.copy_from_slice(&state_cache_document::hash(content).to_le_bytes()[..4]);
}

/// Decodes `count` mutated forms.
pub fn run(seed: u64, count: u64) -> Seen {
    let mut random = Random(seed);
    let seeds = seeds(&mut random);
    let mut decoder = Decoder::new().unwrap();
    let held = decoder.memory();
    let mut seen = Seen::default();
    for round in 0..count {
        let (packed, base, document) = random.pick(&seeds);
        let mut bytes = packed.clone();
        for _ in 0..1 + random.below(4) {
            mutate(&mut random, &mut bytes, &seeds);
        }
        let sealed = round % 2 == 0 && bytes.len() >= 4;
        if sealed {
            seal(&mut bytes);
        }
        // Sometimes no base, or a wrong one.
        let base = match random.below(16) {
            0 => None,
            1 => Some(random.pick(&seeds).2.as_slice()),
            _ => Some(base.as_slice()),
        };
        seen.inputs += 1;
        match decoder.decode(&bytes, base) {
            Ok(read) => {
                assert_eq!(
                    read.len(),
                    Header::read(&bytes).unwrap().whole_bytes as usize
                );
                assert!(read.len() <= bytes.len() * EXPANSION);
                // The checksum lets pass what a writer wrote, be it upon another base.
                assert!(sealed || seeds.iter().any(|(form, ..)| *form == bytes));
                if read == *document {
                    seen.same += 1;
                } else {
                    seen.other += 1;
                }
            }
            Err(Fault::Corrupt) => seen.refused += 1,
            Err(_) => seen.refused_unread += 1,
        }
    }
    assert_eq!(decoder.memory(), held);
    seen
}

/// Stored forms with their bases and documents.
fn seeds(random: &mut Random) -> Vec<(Vec<u8>, Vec<u8>, Vec<u8>)> {
    let mut seeds = Vec::new();
    for level in [1, 3, 19] {
        for (_, documents) in histories(random, 12) {
            let mut store = Store::new(level);
            for (version, document) in (1..).zip(&documents) {
                store.save(version, document, 16);
                if let Some(packed) = store.packed(version) {
                    let base = Header::read(packed).unwrap().base_version(version).unwrap();
                    let base = base.map_or(&[][..], |base| {
                        &documents[usize::try_from(base).unwrap() - 1]
                    });
                    seeds.push((packed.to_vec(), base.to_vec(), document.clone()));
                }
            }
        }
    }
    seeds
}

fn mutate(random: &mut Random, bytes: &mut Vec<u8>, seeds: &[(Vec<u8>, Vec<u8>, Vec<u8>)]) {
    if bytes.is_empty() {
        bytes.push(0x51);
    }
    // The first bytes hold the header and the headers of the frame and of its first block.
    let reach = if random.below(2) == 0 {
        bytes.len()
    } else {
        bytes.len().min(32)
    };
    let at = random.below(reach);
    match random.below(8) {
        0 | 1 => bytes[at] ^= 1 << random.below(8),
        2 => bytes[at] = *random.pick(&[0, 1, 0x7F, 0x80, 0xFE, 0xFF]),
        3 => bytes[at] = random.next().to_le_bytes()[0],
        4 => bytes.truncate(at),
        5 => bytes.insert(at, random.next().to_le_bytes()[0]),
        6 => {
            let end = bytes.len().min(at + random.below(9));
            bytes.drain(at..end);
        }
        _ => {
            let other = &random.pick(seeds).0;
            let from = random.below(other.len());
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
    }
}

#[test]
fn mutated_forms_are_refused_or_decoded_within_bounds() {
    let seen = run(21, 200_000);
    // Each of the ways out was taken.
    assert!(seen.refused_unread > 50_000, "{seen:?}");
    assert!(seen.refused > 10_000, "{seen:?}");
    assert!(seen.other > 1_000, "{seen:?}");
    assert!(seen.same > 10, "{seen:?}");
}
