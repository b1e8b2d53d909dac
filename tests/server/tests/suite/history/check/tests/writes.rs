//! Writes that are lost, versions and states that come and go.

use super::super::Kind;
use super::{Made, X, Y, absent, change, read, seen};
use crate::history::record::Act;
use crate::history::record::Change::{Append, Delete, Remove, Set};
use crate::history::record::Level::Committed;
use crate::history::record::Outcome::Unknown;

#[test]
fn an_update_lost_under_another_is_found() {
    Made::new()
        .add(Committed, 1, 9, vec![change(X, Append(10))])
        .add(Committed, 1, 9, vec![change(X, Append(11))])
        .last(vec![seen(X, 2, &[1, 11])])
        .holds(Kind::LostWrite);
}

#[test]
fn a_lost_replacement_is_found() {
    Made::new()
        .add(Committed, 1, 3, vec![change(X, Set(10))])
        .last(vec![seen(X, 1, &[1])])
        .holds(Kind::LostWrite);
}

#[test]
fn two_writes_of_one_version_are_found_by_their_number() {
    Made::new()
        .add(Committed, 1, 9, vec![change(X, Set(10))])
        .add(Committed, 1, 9, vec![change(X, Set(11))])
        .last(vec![seen(X, 2, &[11])])
        .holds(Kind::LostWrite);
}

#[test]
fn a_version_that_is_used_again_is_found() {
    Made::new()
        .add(
            Committed,
            1,
            3,
            vec![change(X, Set(10)), Act::Flushed(vec![(X, 2)])],
        )
        .add(
            Committed,
            4,
            6,
            vec![change(X, Set(11)), Act::Flushed(vec![(X, 2)])],
        )
        .holds(Kind::Version);
}

#[test]
fn an_append_lost_before_a_replacement_is_found_by_its_number() {
    Made::new()
        .add(
            Committed,
            1,
            4,
            vec![change(X, Append(10)), Act::Flushed(vec![(X, 2)])],
        )
        .add(Committed, 4, 6, vec![change(X, Append(11))])
        .add(Committed, 6, 8, vec![read(X, 3, &[1, 11])])
        .add(Committed, 8, 10, vec![change(X, Set(12))])
        .last(vec![seen(X, 4, &[12])])
        .holds(Kind::LostWrite);
}

#[test]
fn a_state_that_is_gone_is_found() {
    Made::new()
        .add(Committed, 1, 3, vec![absent(X)])
        .holds(Kind::Absent);
}

#[test]
fn a_state_that_is_gone_again_is_found() {
    Made::new()
        .add(Committed, 1, 3, vec![change(X, Delete)])
        .add(Committed, 4, 6, vec![change(X, Set(10))])
        .add(Committed, 7, 9, vec![absent(X)])
        .holds(Kind::Absent);
}

#[test]
fn a_state_deleted_and_made_again_is_clean() {
    Made::new()
        .add(
            Committed,
            1,
            4,
            vec![change(X, Delete), Act::Flushed(vec![(X, 2)])],
        )
        .add(Committed, 4, 6, vec![absent(X)])
        .add(
            Committed,
            6,
            9,
            vec![change(X, Set(10)), Act::Flushed(vec![(X, 3)])],
        )
        .add(Committed, 10, 13, vec![change(X, Remove(Some(3)))])
        .add(Committed, 11, 12, vec![absent(X)])
        .add(Committed, 13, 15, vec![change(X, Set(11))])
        .last(vec![seen(X, 4, &[11])])
        .must_be_clean();
}

#[test]
fn what_is_not_known_counts_once_it_is_seen() {
    let made = || {
        Made::new()
            .add(
                Committed,
                1,
                3,
                vec![change(X, Append(10)), change(Y, Append(11))],
            )
            .ended(Unknown)
    };
    made()
        .last(vec![seen(X, 1, &[1]), seen(Y, 1, &[2])])
        .must_be_clean();
    made()
        .last(vec![seen(X, 2, &[1, 10]), seen(Y, 2, &[2, 11])])
        .must_be_clean();
    made()
        .last(vec![seen(X, 2, &[1, 10]), seen(Y, 1, &[2])])
        .holds(Kind::LostWrite);
    made()
        .add(Committed, 4, 6, vec![read(X, 2, &[1, 10])])
        .add(Committed, 7, 9, vec![read(X, 1, &[1])])
        .holds(Kind::Stale);
}
