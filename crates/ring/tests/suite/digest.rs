//! What is told of many changes at once.

use crate::support::record;
use state_cache_ring::{Change, Digest, Record};

/// (class, key, change) of each round.
fn told(records: &[Record<'_>]) -> Vec<Vec<(String, String, Change)>> {
    let mut digest = Digest::default();
    for record in records {
        digest.add(record);
    }
    let string = |bytes: Box<[u8]>| String::from_utf8(bytes.into_vec()).unwrap();
    digest
        .rounds()
        .unwrap()
        .into_iter()
        .map(|round| {
            round
                .into_iter()
                .map(|((class, key), change)| (string(class), string(key), change))
                .collect()
        })
        .collect()
}

fn change(class: &str, key: &str, change: Change) -> (String, String, Change) {
    (class.to_owned(), key.to_owned(), change)
}

#[test]
fn of_each_state_the_last_change_is_told() {
    assert_eq!(told(&[]), Vec::<Vec<_>>::new());
    assert_eq!(
        told(&[
            record("run", "b", Change::Set(1)),
            record("run", "a", Change::Set(1)),
            record("run", "a", Change::Set(2)),
            record("swarm", "a", Change::Set(9)),
            record("run", "b", Change::Delete(2)),
            record("run", "a", Change::Set(3)),
        ]),
        [[
            change("run", "a", Change::Set(3)),
            change("run", "b", Change::Delete(2)),
            change("swarm", "a", Change::Set(9)),
        ]]
    );
}

#[test]
fn a_version_that_comes_late_does_not_hide_a_newer_one() {
    assert_eq!(
        told(&[
            record("run", "a", Change::Set(6)),
            record("run", "a", Change::Set(5)),
            record("run", "b", Change::Delete(6)),
            record("run", "b", Change::Set(5)),
            record("run", "c", Change::Set(5)),
            record("run", "c", Change::Delete(0)),
        ]),
        [[
            change("run", "a", Change::Set(6)),
            change("run", "b", Change::Delete(6)),
            change("run", "c", Change::Delete(0)),
        ]]
    );
}

#[test]
fn a_state_deleted_by_hand_and_made_again_is_told_twice() {
    assert_eq!(
        told(&[
            record("run", "a", Change::Set(7)),
            record("run", "b", Change::Set(1)),
            record("run", "a", Change::Delete(0)),
            record("run", "a", Change::Set(1)),
            record("run", "a", Change::Set(2)),
        ]),
        [
            vec![
                change("run", "a", Change::Delete(0)),
                change("run", "b", Change::Set(1)),
            ],
            vec![change("run", "a", Change::Set(2))],
        ]
    );
}

#[test]
fn everything_hides_what_it_covers() {
    assert_eq!(
        told(&[
            record("run", "a", Change::Set(1)),
            record("swarm", "a", Change::Set(1)),
            record("run", "", Change::Everything),
            record("run", "b", Change::Set(1)),
            record("run", "x*", Change::Matching),
            record("run", "x*", Change::Matching),
        ]),
        [
            vec![
                change("run", "", Change::Everything),
                change("run", "x*", Change::Matching),
            ],
            vec![change("swarm", "a", Change::Set(1))],
        ]
    );
    assert_eq!(
        told(&[
            record("run", "a", Change::Set(1)),
            record("", "", Change::Everything),
            record("swarm", "a", Change::Set(1)),
            record("run", "", Change::Everything),
            record("", "x*", Change::Matching),
        ]),
        [[change("", "", Change::Everything)]]
    );
}
