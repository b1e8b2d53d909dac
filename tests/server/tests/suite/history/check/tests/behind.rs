//! Classes without snapshots.

use super::super::Kind;
use super::{B, B2, Made, S, X, change, read, seen};
use crate::history::record::Change::Append;
use crate::history::record::Level::{Committed, Repeatable, Serializable};
use crate::history::record::{Act, Element};

#[test]
fn classes_without_snapshots_answer_with_the_newest() {
    // Each state for itself, at any isolation level.
    let both = Act::Read(vec![seen(B, 2, &[3, 10]), seen(B2, 1, &[4])]);
    Made::new()
        .add(
            Committed,
            1,
            9,
            vec![change(B, Append(10)), change(B2, Append(11))],
        )
        .add(Repeatable, 4, 8, vec![both])
        .must_be_clean();
    Made::new()
        .add(
            Repeatable,
            1,
            20,
            vec![read(B, 1, &[3]), read(X, 1, &[1]), read(B, 2, &[3, 10])],
        )
        .add(Committed, 2, 3, vec![change(B, Append(10))])
        .must_be_clean();
    for level in [Committed, Repeatable, Serializable] {
        Made::new()
            .add(
                level,
                1,
                20,
                vec![read(X, 1, &[1]), read(X, 1, &[1]), read(B, 1, &[3])],
            )
            .add(Committed, 1, 2, vec![change(B, Append(10))])
            .last(vec![seen(B, 2, &[3, 10])])
            .holds(Kind::Stale);
    }
}

#[test]
fn a_class_that_changes_its_mode_is_current_at_read_committed() {
    let made = |level| {
        Made::new()
            .add(
                level,
                1,
                20,
                vec![read(X, 1, &[1]), read(X, 1, &[1]), read(S, 1, &[5])],
            )
            .add(Committed, 1, 2, vec![change(S, Append(10))])
            .last(vec![seen(S, 2, &[5, 10])])
    };
    made(Committed).holds(Kind::Stale);
    made(Repeatable).must_be_clean();
}

#[test]
fn a_crash_may_lose_what_is_young_in_behind_classes_alone() {
    let made = |state| {
        let before = state as Element + 1;
        Made::new()
            .add(Committed, 1, 3, vec![change(state, Append(10))])
            .add(Committed, 6, 8, vec![change(state, Append(11))])
            .add(Committed, 8, 10, vec![read(state, 3, &[before, 10, 11])])
            .crash(5)
    };
    made(B).last(vec![seen(B, 2, &[3, 10])]).must_be_clean();
    made(B).last(vec![seen(B, 3, &[3, 10, 11])]).must_be_clean();
    made(B).last(vec![seen(B, 1, &[3])]).holds(Kind::Stale);
    made(X)
        .last(vec![seen(X, 2, &[1, 10])])
        .holds(Kind::LostWrite);
    // Never a part of a version.
    Made::new()
        .add(
            Committed,
            6,
            9,
            vec![change(B, Append(10)), change(B, Append(11))],
        )
        .crash(5)
        .last(vec![seen(B, 2, &[3, 10])])
        .holds(Kind::IntermediateRead);
}

#[test]
fn a_parked_state_may_be_lost_whatever_its_age() {
    let mut made = Made::new()
        .add(Committed, 1, 3, vec![change(B, Append(10))])
        .crash(5)
        .last(vec![seen(B, 1, &[3])]);
    made.0.crash.as_mut().unwrap().parked.insert(B);
    made.must_be_clean();
}
