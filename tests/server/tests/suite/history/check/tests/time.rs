//! Who must have come before whom.

use super::super::Kind;
use super::{Made, X, Y, absent, change, elsewhere, read, seen};
use crate::history::record::Change::{Append, Delete, Remove, Set};
use crate::history::record::Level::{Committed, Repeatable, Serializable};
use crate::history::record::{Act, Element, Level};

#[test]
fn what_follows_in_order_is_clean() {
    Made::new()
        .add(Committed, 1, 3, vec![change(X, Append(10))])
        .add(Committed, 3, 5, vec![read(X, 2, &[1, 10])])
        .add(
            Repeatable,
            5,
            8,
            vec![read(X, 2, &[1, 10]), change(Y, Set(11))],
        )
        .add(
            Serializable,
            9,
            12,
            vec![read(Y, 2, &[11]), read(X, 2, &[1, 10])],
        )
        .last(vec![seen(X, 2, &[1, 10]), seen(Y, 2, &[11])])
        .must_be_clean();
}

#[test]
fn a_read_before_the_commit_is_answered_may_see_it_or_not() {
    Made::new()
        .add(Committed, 1, 9, vec![change(X, Append(10))])
        .add(Committed, 3, 5, vec![read(X, 1, &[1])])
        .add(Committed, 5, 7, vec![read(X, 2, &[1, 10])])
        .must_be_clean();
}

#[test]
fn a_deleted_state_that_is_back_is_found() {
    Made::new()
        .add(Committed, 1, 3, vec![change(X, Delete)])
        .add(Committed, 4, 6, vec![read(X, 1, &[1])])
        .holds(Kind::Stale);
}

#[test]
fn changes_that_cancel_out_under_an_older_snapshot_are_clean() {
    for level in [Repeatable, Serializable] {
        cancelling(level, vec![change(X, Set(10)), change(X, Delete)]).must_be_clean();
    }
}

#[test]
fn a_lost_delete_of_what_the_snapshot_holds_is_found() {
    let acts = vec![read(X, 1, &[1]), change(X, Set(10)), change(X, Delete)];
    Made::new()
        .add(Repeatable, 1, 9, acts)
        .add(Committed, 10, 12, vec![read(X, 1, &[1])])
        .holds(Kind::Stale);
}

#[test]
fn a_lost_delete_without_a_snapshot_is_found() {
    cancelling(Committed, vec![change(X, Set(10)), change(X, Delete)]).holds(Kind::Stale);
}

/// A state is absent; a transaction with these acts commits after another has made the state, which stays.
fn cancelling(level: Level, acts: Vec<Act>) -> Made {
    let mut made = Made::new();
    made.0.first[X] = seen(X, 0, &[]);
    let acts = std::iter::once(elsewhere()).chain(acts).collect();
    made.add(level, 1, 9, acts)
        .add(Committed, 2, 3, vec![change(X, Set(11))])
        .add(Committed, 10, 12, vec![read(X, 1, &[11])])
        .last(vec![seen(X, 1, &[11])])
}

#[test]
fn a_stale_read_is_found() {
    Made::new()
        .add(Committed, 1, 3, vec![change(X, Append(10))])
        .add(Committed, 3, 5, vec![read(X, 1, &[1])])
        .last(vec![seen(X, 2, &[1, 10])])
        .holds(Kind::Stale);
}

#[test]
fn a_read_older_than_a_write_that_nobody_saw_is_found() {
    Made::new()
        .add(Committed, 1, 3, vec![change(X, Set(10))])
        .add(Committed, 4, 6, vec![read(X, 1, &[1])])
        .add(Committed, 7, 9, vec![change(X, Set(11))])
        .last(vec![seen(X, 3, &[11])])
        .holds(Kind::Stale);
}

#[test]
fn a_read_older_than_another_read_is_found() {
    Made::new()
        .add(Committed, 1, 20, vec![change(X, Append(10))])
        .add(Committed, 3, 5, vec![read(X, 2, &[1, 10])])
        .add(Committed, 6, 8, vec![read(X, 1, &[1])])
        .holds(Kind::Stale);
}

#[test]
fn a_read_older_than_the_history_is_found() {
    let mut made = Made::new();
    made.0.first[X] = seen(X, 2, &[1, 9]);
    made.add(Committed, 1, 3, vec![read(X, 1, &[1])])
        .holds(Kind::Stale);
}

#[test]
fn an_entry_left_behind_at_the_end_is_found() {
    Made::new()
        .add(Committed, 1, 3, vec![change(X, Append(10))])
        .add(Committed, 4, 6, vec![change(X, Append(11))])
        .add(Committed, 7, 9, vec![read(X, 3, &[1, 10, 11])])
        .last(vec![seen(X, 2, &[1, 10])])
        .holds(Kind::Stale);
}

#[test]
fn a_cycle_of_writes_is_found() {
    let flushed = |x, y| Act::Flushed(vec![(X, x), (Y, y)]);
    Made::new()
        .add(
            Committed,
            1,
            20,
            vec![change(X, Set(10)), change(Y, Set(11)), flushed(2, 3)],
        )
        .add(
            Committed,
            1,
            20,
            vec![change(X, Set(12)), change(Y, Set(13)), flushed(3, 2)],
        )
        .holds(Kind::WriteCycle);
}

#[test]
fn two_states_written_in_two_orders_are_found() {
    Made::new()
        .add(
            Committed,
            1,
            20,
            vec![change(X, Append(10)), change(Y, Append(11))],
        )
        .add(
            Committed,
            1,
            20,
            vec![change(X, Append(12)), change(Y, Append(13))],
        )
        .add(Committed, 4, 20, vec![read(X, 3, &[1, 10, 12])])
        .add(Committed, 4, 20, vec![read(Y, 3, &[2, 13, 11])])
        .holds(Kind::WriteCycle);
}

#[test]
fn one_part_of_a_transaction_without_the_other_is_found() {
    let both = |x: &[Element], y: &[Element]| {
        Act::Read(vec![seen(X, x.len() as i64, x), seen(Y, y.len() as i64, y)])
    };
    for level in [Committed, Repeatable] {
        Made::new()
            .add(
                Committed,
                1,
                9,
                vec![change(X, Append(10)), change(Y, Append(11))],
            )
            .add(level, 2, 8, vec![both(&[1, 10], &[2])])
            .last(vec![seen(X, 2, &[1, 10]), seen(Y, 2, &[2, 11])])
            .holds(Kind::BrokenSnapshot);
    }
}

#[test]
fn each_statement_at_read_committed_has_its_own_snapshot() {
    let made = |level| {
        Made::new()
            .add(
                Committed,
                1,
                3,
                vec![change(X, Append(10)), change(Y, Append(11))],
            )
            .add(
                level,
                1,
                20,
                vec![read(X, 1, &[1]), elsewhere(), read(X, 2, &[1, 10])],
            )
            .last(vec![seen(X, 2, &[1, 10]), seen(Y, 2, &[2, 11])])
    };
    made(Committed).must_be_clean();
    made(Repeatable).holds(Kind::BrokenSnapshot);
}

#[test]
fn an_old_snapshot_is_clean() {
    let old = vec![read(X, 1, &[1]), elsewhere(), elsewhere(), read(Y, 1, &[2])];
    Made::new()
        .add(Repeatable, 1, 20, old.clone())
        .add(
            Committed,
            3,
            6,
            vec![change(X, Append(10)), change(Y, Append(11))],
        )
        .last(vec![seen(X, 2, &[1, 10]), seen(Y, 2, &[2, 11])])
        .must_be_clean();
    Made::new()
        .add(Committed, 1, 20, old)
        .add(Committed, 2, 4, vec![change(Y, Append(11))])
        .last(vec![seen(Y, 2, &[2, 11])])
        .holds(Kind::Stale);
}

#[test]
fn a_write_upon_what_the_snapshot_does_not_see_is_found() {
    let made = |level| {
        Made::new()
            .add(
                level,
                1,
                20,
                vec![read(X, 1, &[1]), elsewhere(), change(X, Append(11))],
            )
            .add(Committed, 2, 3, vec![change(X, Append(10))])
            .last(vec![seen(X, 3, &[1, 10, 11])])
    };
    made(Committed).must_be_clean();
    made(Repeatable).holds(Kind::BrokenSnapshot);
}

#[test]
fn write_skew_is_allowed_but_not_among_serializable_transactions() {
    let made = |one, other| {
        Made::new()
            .add(one, 1, 20, vec![read(X, 1, &[1]), change(Y, Append(10))])
            .add(other, 1, 20, vec![read(Y, 1, &[2]), change(X, Append(11))])
            .last(vec![seen(X, 2, &[1, 11]), seen(Y, 2, &[2, 10])])
    };
    made(Repeatable, Repeatable).must_be_clean();
    made(Serializable, Repeatable).must_be_clean();
    made(Serializable, Serializable).holds(Kind::NotSerializable);
}

#[test]
fn truncate_is_seen_by_older_snapshots_too() {
    let wipe = vec![change(X, Remove(Some(1))), change(Y, Remove(Some(1)))];
    let made = |wipes: bool| {
        let made = Made::new().add(Committed, 2, 5, wipe.clone());
        let made = if wipes { made.wiping() } else { made };
        made.add(
            Repeatable,
            1,
            20,
            vec![
                read(X, 1, &[1]),
                elsewhere(),
                elsewhere(),
                elsewhere(),
                absent(Y),
            ],
        )
    };
    made(true).must_be_clean();
    made(false).holds(Kind::BrokenSnapshot);
}
