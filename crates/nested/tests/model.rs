//! Histories of subtransactions, against a list of all values for each open level.

#![allow(clippy::unwrap_used)]

use state_cache_histories::Random;
use state_cache_nested::{Nested, TOP};

/// The values of all levels, outermost first.
fn values(nested: &Nested<Vec<u64>>) -> Vec<u64> {
    nested
        .layers()
        .flat_map(|(_, layer)| layer.iter().copied())
        .collect()
}

#[test]
fn values_end_with_the_subtransaction_that_made_them() {
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let mut nested = Nested::default();
        // What there would be after an abort of each open subtransaction, and what there is.
        let mut before: Vec<Vec<u64>> = Vec::new();
        let mut now: Vec<u64> = Vec::new();
        for step in 0..200 {
            let level = TOP + before.len() as i32;
            match random.below(10) {
                0..4 => {
                    nested.at(level, Vec::new).unwrap().push(step);
                    now.push(step);
                }
                4..7 => before.push(now.clone()),
                7..9 if level > TOP => {
                    nested.prepare_commit(level).unwrap();
                    nested.commit(level);
                    before.pop();
                }
                9 if level > TOP => {
                    let mut undone = Vec::new();
                    nested.abort(level, |layer| undone.extend(layer));
                    let kept = before.pop().unwrap();
                    assert_eq!(undone, now[kept.len()..], "seed {seed}, step {step}");
                    now = kept;
                }
                _ => {}
            }
            assert_eq!(values(&nested), now, "seed {seed}, step {step}");
            assert_eq!(nested.is_empty(), nested.layers().next().is_none());
            let levels: Vec<i32> = nested.layers().map(|(level, _)| level).collect();
            assert!(levels.is_sorted_by(|a, b| a < b), "{levels:?}");
            assert!(levels.iter().all(|it| (TOP..=level).contains(it)));
        }
        nested.clear();
        assert!(nested.is_empty());
    }
}

#[test]
fn an_abort_takes_along_subtransactions_within() {
    let mut nested = Nested::default();
    for level in TOP..TOP + 4 {
        nested.at(level, Vec::new).unwrap().push(level as u64);
    }
    let mut undone = Vec::new();
    nested.abort(TOP + 2, |layer| undone.push(layer));
    assert_eq!(undone, [[4], [3]]);
    assert_eq!(values(&nested), [1, 2]);
}

#[test]
fn a_commit_skips_levels_without_values_one_by_one() {
    let mut nested = Nested::default();
    nested.at(TOP + 2, Vec::new).unwrap().push(1);
    nested.prepare_commit(TOP + 2).unwrap();
    nested.commit(TOP + 2);
    // The parent has none of its own, and its abort takes them along.
    nested.abort(TOP + 1, drop);
    assert!(nested.is_empty());
}
