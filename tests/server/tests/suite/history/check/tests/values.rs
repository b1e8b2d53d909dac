//! What one read shows by itself.

use super::super::Kind;
use super::{Made, X, Y, change, read, seen};
use crate::history::record::Act;
use crate::history::record::Change::{Append, Set};
use crate::history::record::Level::{Committed, Repeatable};
use crate::history::record::Outcome::Aborted;

#[test]
fn own_changes_seen_and_undone_are_clean() {
    Made::new()
        .add(
            Committed,
            1,
            12,
            vec![
                change(X, Append(10)),
                read(X, 2, &[1, 10]),
                Act::Mark,
                change(X, Append(11)),
                read(X, 2, &[1, 10, 11]),
                change(Y, Set(12)),
                read(Y, 2, &[12]),
                Act::Undo,
                read(X, 2, &[1, 10]),
                read(Y, 1, &[2]),
            ],
        )
        .last(vec![seen(X, 2, &[1, 10]), seen(Y, 1, &[2])])
        .must_be_clean();
}

#[test]
fn an_element_that_nobody_wrote_is_found() {
    Made::new()
        .add(Committed, 1, 3, vec![read(X, 2, &[1, 99])])
        .holds(Kind::Garbage);
}

#[test]
fn an_element_of_another_state_is_found() {
    Made::new()
        .add(Committed, 1, 3, vec![change(Y, Append(10))])
        .add(Committed, 4, 6, vec![read(X, 2, &[1, 10])])
        .holds(Kind::Garbage);
}

#[test]
fn an_aborted_read_is_found() {
    Made::new()
        .add(Committed, 1, 9, vec![change(X, Append(10))])
        .ended(Aborted)
        .add(Committed, 3, 5, vec![read(X, 2, &[1, 10])])
        .holds(Kind::AbortedRead);
}

#[test]
fn what_a_savepoint_took_back_is_found() {
    Made::new()
        .add(
            Committed,
            1,
            9,
            vec![
                change(Y, Append(9)),
                Act::Mark,
                change(X, Append(10)),
                Act::Undo,
            ],
        )
        .add(Committed, 10, 12, vec![read(X, 2, &[1, 10])])
        .holds(Kind::AbortedRead);
}

#[test]
fn a_read_before_commit_is_found() {
    Made::new()
        .add(
            Committed,
            1,
            20,
            vec![change(X, Append(10)), read(Y, 1, &[2]), read(Y, 1, &[2])],
        )
        .add(Committed, 2, 3, vec![read(X, 2, &[1, 10])])
        .holds(Kind::DirtyRead);
}

#[test]
fn an_intermediate_read_is_found() {
    Made::new()
        .add(
            Committed,
            1,
            5,
            vec![change(X, Append(10)), change(X, Append(11))],
        )
        .add(Committed, 6, 8, vec![read(X, 2, &[1, 10])])
        .holds(Kind::IntermediateRead);
}

#[test]
fn an_append_made_twice_is_found() {
    Made::new()
        .add(Committed, 1, 3, vec![change(X, Append(10))])
        .add(Committed, 4, 6, vec![read(X, 3, &[1, 10, 10])])
        .holds(Kind::Duplicate);
}

#[test]
fn two_orders_are_found() {
    Made::new()
        .add(Committed, 1, 9, vec![change(X, Append(10))])
        .add(Committed, 1, 9, vec![change(X, Append(11))])
        .add(Committed, 2, 9, vec![read(X, 3, &[1, 10, 11])])
        .add(Committed, 2, 9, vec![read(X, 3, &[1, 11, 10])])
        .holds(Kind::Order);
}

#[test]
fn an_own_change_that_is_not_seen_is_found() {
    Made::new()
        .add(
            Committed,
            1,
            9,
            vec![change(X, Append(10)), read(X, 1, &[1])],
        )
        .holds(Kind::OwnChanges);
}

#[test]
fn an_own_change_that_was_undone_and_is_seen_is_found() {
    Made::new()
        .add(
            Committed,
            1,
            9,
            vec![
                Act::Mark,
                change(X, Append(10)),
                Act::Undo,
                read(X, 2, &[1, 10]),
            ],
        )
        .holds(Kind::AbortedRead);
}

#[test]
fn transactions_that_read_each_other_are_found() {
    Made::new()
        .add(
            Repeatable,
            1,
            20,
            vec![change(X, Append(10)), read(Y, 2, &[2, 11])],
        )
        .add(
            Repeatable,
            1,
            20,
            vec![change(Y, Append(11)), read(X, 2, &[1, 10])],
        )
        .holds(Kind::DirtyRead);
}
