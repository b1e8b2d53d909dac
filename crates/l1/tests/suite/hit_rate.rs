//! SIEVE over partitions misses no more than one exact LRU.

use crate::trace::{KEYS, compare, skewed, skewed_with_scans};

#[test]
fn skewed_requests_hit_as_often_as_with_exact_lru() {
    let rates = compare(&skewed(400_000, 42), KEYS / 10, 600);
    assert!(rates.l1 >= rates.lru, "{} against {}", rates.l1, rates.lru);
}

#[test]
fn scans_cost_no_more_than_with_exact_lru() {
    let rates = compare(&skewed_with_scans(400_000, 43), KEYS / 10, 600);
    assert!(rates.l1 >= rates.lru, "{} against {}", rates.l1, rates.lru);
}

#[test]
fn many_partitions_hit_as_often_as_one_exact_lru() {
    let rates = compare(&skewed(300_000, 44), KEYS / 10, 6_500);
    assert_eq!(rates.partitions, 64);
    assert!(rates.capacity > 9_900, "{}", rates.capacity);
    assert!(rates.l1 >= rates.lru, "{} against {}", rates.l1, rates.lru);
}
