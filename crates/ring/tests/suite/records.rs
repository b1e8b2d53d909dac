//! What comes out of a record is what went in, or more than that; never something else.

use crate::support::{DB, bytes, record};
use state_cache_ring::{Change, Damaged, MAX_RECORD, Record, decode, encode};

fn all<'a>(bytes: &'a [u8]) -> Vec<Record<'a>> {
    decode(bytes).map(Result::unwrap).collect()
}

#[test]
fn records_come_back_as_they_were() {
    let longest = "x".repeat(255);
    let records = [
        record("run", "a", Change::Set(1)),
        record("run", "", Change::Delete(i64::MAX)),
        record("", "b", Change::Set(i64::MIN)),
        record(&longest, &longest, Change::Delete(0)),
        record("run", "a*", Change::Matching),
        record("run", "", Change::Everything),
        record("", "", Change::Everything),
    ];
    assert_eq!(all(&bytes(&records)), records);
}

#[test]
fn names_that_are_too_long_stand_for_more() {
    let (fits, long) = ("x".repeat(8000), "x".repeat(8001));
    let fitting = record("run", &fits, Change::Matching);
    assert_eq!(all(&bytes(&[fitting])), [fitting]);
    assert!(bytes(&[fitting]).len() <= MAX_RECORD);
    assert_eq!(
        all(&bytes(&[record("run", &long, Change::Matching)])),
        [record("run", "", Change::Everything)]
    );
    assert_eq!(
        all(&bytes(&[record(&long, "a", Change::Set(1))])),
        [record("", "", Change::Everything)]
    );
}

#[test]
fn too_many_changes_become_their_classes_and_too_many_classes_everything() {
    let keys: Vec<String> = (0..100).map(|n| format!("key {n}")).collect();
    let mut records: Vec<Record<'_>> = keys
        .iter()
        .map(|key| record("run", key, Change::Set(1)))
        .collect();
    records.push(record("config", "a", Change::Delete(2)));
    records.push(record("config", "a*", Change::Matching));
    records.push(record("config", "b*", Change::Matching));
    let needed = bytes(&records).len();
    assert_eq!(all(&encode(DB, &records, needed).unwrap()), records);

    let coarse = encode(DB, &records, needed - 1).unwrap();
    assert_eq!(
        all(&coarse),
        [
            record("config", "", Change::Everything),
            record("config", "*", Change::Matching),
            record("run", "", Change::Everything),
        ]
    );
    assert_eq!(encode(DB, &records, coarse.len()).unwrap(), coarse);
    assert_eq!(
        all(&encode(DB, &records, coarse.len() - 1).unwrap()),
        [record("", "", Change::Everything)]
    );
    assert!(encode(DB, &[], 0).unwrap().is_empty());
}

/// Whatever a byte is changed to: never more than what is there, never a panic, and a wrong length is noticed.
#[test]
fn damage_is_noticed_or_harmless() {
    let records = [
        record("run", "first", Change::Set(7)),
        record("run", "second", Change::Delete(8)),
    ];
    let whole = bytes(&records);
    for at in 0..whole.len() {
        for value in 0..=255 {
            let mut damaged = whole.clone();
            damaged[at] = value;
            let read: Vec<_> = decode(&damaged).collect();
            assert!(read.len() <= 2);
            if value != whole[at] && [0, 1, 2, 3, 9, 10, 11].contains(&at) {
                assert!(read.contains(&Err(Damaged)), "byte {at} = {value}");
            }
        }
        let cut = decode(&whole[..at]).collect::<Vec<_>>();
        let first = whole.len() - bytes(&records[1..]).len();
        assert_eq!(
            cut.contains(&Err(Damaged)),
            ![0, first].contains(&at),
            "{at}"
        );
    }
    let unknown = [&whole[..8], &[5], &whole[9..]].concat();
    assert_eq!(decode(&unknown).collect::<Vec<_>>(), [Err(Damaged)]);
}
