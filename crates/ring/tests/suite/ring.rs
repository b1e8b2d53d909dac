//! One process after the other: what a reader gets, and when it has been lapped.

use crate::support::{Memory, bytes, record};
use state_cache_ring::{Change, Lapped, MAX_RECORD, decode};

/// The versions read from a position on, and the next position.
fn read(ring: &Memory, from: u64, max_bytes: usize) -> Result<(Vec<i64>, u64), Lapped> {
    let mut buffer = vec![1, 2, 3];
    let next = ring.read(from, max_bytes, &mut buffer)?;
    let versions = decode(&buffer)
        .map(|record| match record.unwrap().change {
            Change::Set(version) => version,
            other => panic!("{other:?}"),
        })
        .collect();
    Ok((versions, next))
}

#[test]
fn a_reader_gets_what_was_appended_in_that_order() {
    let ring = Memory::new(1 << 16);
    assert_eq!(ring.head(), 0);
    assert_eq!(read(&ring, 0, 100), Ok((vec![], 0)));
    let first = ring.put("run", "a", Change::Set(1));
    let second = ring.put("run", "b", Change::Set(2));
    assert_eq!((first.start, first.end), (0, second.start));
    assert_eq!(ring.head(), second.end);
    assert_eq!(read(&ring, 0, 1 << 16), Ok((vec![1, 2], second.end)));
    assert_eq!(read(&ring, first.end, 1 << 16), Ok((vec![2], second.end)));
    assert_eq!(read(&ring, second.end, 1 << 16), Ok((vec![], second.end)));
    // A position that the ring has not reached belongs to another run of the server.
    assert_eq!(read(&ring, second.end + 1, 1 << 16), Err(Lapped));
}

#[test]
fn a_small_bite_holds_whole_records() {
    let ring = Memory::new(1 << 16);
    let ends: Vec<u64> = (0..1000)
        .map(|n| {
            ring.put("run", &"k".repeat(n % 50), Change::Set(n as i64))
                .end
        })
        .collect();
    let (mut from, mut versions) = (0, Vec::new());
    while from < ring.head() {
        let (some, next) = read(&ring, from, 1).unwrap();
        assert!(next - from <= MAX_RECORD as u64 && ends.contains(&next));
        versions.extend(some);
        from = next;
    }
    assert_eq!(versions, (0..1000).collect::<Vec<i64>>());
}

/// With every capacity and every distance between reader and head: lapped exactly when something of what the
/// reader has not read is gone.
#[test]
fn lapping_is_noticed_exactly() {
    let len = bytes(&[record("run", "k", Change::Set(0))]).len();
    for capacity in (3 * len)..(5 * len) {
        let ring = Memory::new(capacity);
        let starts: Vec<u64> = (0..40)
            .map(|version| {
                let start = ring.put("run", "k", Change::Set(version)).start;
                let oldest = (version as usize + 1).saturating_sub(capacity / len);
                for (from, first) in (0..=start).step_by(len).zip(0..) {
                    let expected = if first < oldest as i64 {
                        Err(Lapped)
                    } else {
                        Ok(((first..=version).collect(), ring.head()))
                    };
                    assert_eq!(read(&ring, from, capacity), expected, "{capacity} {from}");
                }
                start
            })
            .collect();
        assert_eq!(starts.len(), 40);
    }
}

#[test]
fn more_than_the_ring_holds_laps_everybody() {
    let ring = Memory::new(100);
    let start = ring.put("run", "a", Change::Set(1)).start;
    let many: Vec<_> = (0..20)
        .map(|n| record("run", "k", Change::Set(n)))
        .collect();
    let range = ring.append(&bytes(&many), |range| range);
    assert_eq!(range.end - range.start, 20 * 24);
    assert_eq!(read(&ring, start, 100), Err(Lapped));
    assert_eq!(read(&ring, range.start, 100), Err(Lapped));
    assert_eq!(
        read(&ring, range.end - 96, 100),
        Ok((vec![16, 17, 18, 19], range.end))
    );
    let next = ring.put("run", "b", Change::Set(2));
    assert_eq!(read(&ring, next.start, 100), Ok((vec![2], next.end)));
}

#[test]
fn damage_ends_what_is_read() {
    let mut ring = Memory::new(1 << 14);
    let first = ring.put("run", "a", Change::Set(1));
    let second = ring.put("run", "b", Change::Set(2));
    ring.poke(second.start as usize + 3, 0xff);
    assert_eq!(read(&ring, 0, 1 << 14), Ok((vec![1], first.end)));
    assert_eq!(read(&ring, first.end, 1 << 14), Err(Lapped));
    let third = ring.put("run", "c", Change::Set(3));
    assert_eq!(read(&ring, third.start, 1 << 14), Ok((vec![3], third.end)));
}
