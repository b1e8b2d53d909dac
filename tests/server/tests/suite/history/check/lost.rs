//! Acknowledged writes that nothing shows, and states that are absent though nobody deleted them.

use super::order::Order;
use super::replay::Own;
use super::{Index, Kind};
use crate::history::record::{Element, Outcome, Promise, Span, State};
use std::rc::Rc;

/// What one transaction finally did to a state.
struct Deed {
    transaction: usize,
    /// It replaced or deleted what was there.
    replaces: bool,
    /// It left the state absent.
    deletes: bool,
    end: Span,
    acknowledged: bool,
    /// What it wrote last.
    element: Option<Element>,
}

/// Checks every state.
pub fn check(index: &mut Index<'_>, orders: &[Order]) {
    let mut deeds: Vec<Vec<Deed>> = orders.iter().map(|_| Vec::new()).collect();
    let replays = Rc::clone(&index.replays);
    for (number, played) in replays.iter().enumerate() {
        if index.history.transactions[number].outcome == Outcome::Aborted {
            continue;
        }
        for (state, own) in &played.does {
            let element = match own {
                Own::Gone => None,
                Own::Suffix(list) | Own::Whole(list) => list.last().copied(),
            };
            deeds[*state].push(Deed {
                transaction: number,
                replaces: !matches!(own, Own::Suffix(_)),
                deletes: matches!(own, Own::Gone),
                end: index.end(number),
                acknowledged: index.took_effect(number),
                element,
            });
        }
    }
    for (state, deeds) in deeds.iter().enumerate() {
        absences(index, state, deeds);
        if index.history.crash.is_none() || index.history.promise(state) == Promise::Through {
            appends(index, state, deeds, &orders[state]);
            numbers(index, state, deeds);
        }
    }
}

/// Whoever finds a state absent must find somebody who deleted it, and nobody who wrote it again before the
/// read began.
fn absences(index: &mut Index<'_>, state: State, deeds: &[Deed]) {
    let before = index.history.first[state].value.is_none();
    let absent: Vec<_> = index
        .observations
        .iter()
        .filter(|seen| seen.state == state && seen.value.is_none() && !seen.own)
        .cloned()
        .collect();
    for seen in absent {
        let span = match seen.reader {
            Some(reader) => match snapshot_of(index, reader, seen.span, state) {
                Some(span) => span,
                None => continue,
            },
            None => seen.span,
        };
        let written_after = |moment: u64| {
            deeds.iter().find(|deed| {
                deed.acknowledged
                    && !deed.deletes
                    && moment < deed.end.from
                    && deed.end.to < span.from
            })
        };
        // A state that was absent before was so at time 0, and one moment before it.
        let never_written = deeds
            .iter()
            .find(|deed| deed.acknowledged && !deed.deletes && deed.end.to < span.from);
        let explained = (before && never_written.is_none())
            || deeds.iter().any(|deed| {
                deed.deletes && deed.end.from <= span.to && written_after(deed.end.to).is_none()
            });
        if !explained {
            let what = format!("nobody deleted it: {}", index.reader(&seen));
            let concerned: Vec<usize> = seen
                .reader
                .into_iter()
                .chain(never_written.map(|deed| deed.transaction))
                .chain(
                    deeds
                        .iter()
                        .filter(|deed| deed.deletes)
                        .map(|deed| deed.transaction)
                        .take(5),
                )
                .collect();
            index.report(Kind::Absent, &what, &concerned, &[state]);
        }
    }
}

/// The time in which the snapshot of a read was taken, unless nothing is promised of it.
fn snapshot_of(index: &Index<'_>, reader: usize, span: Span, state: State) -> Option<Span> {
    use crate::history::record::Level;
    let transaction = &index.history.transactions[reader];
    match (index.history.promise(state), transaction.level) {
        (Promise::Behind, _) | (_, Level::Committed) => Some(span),
        (Promise::Switching, _) => None,
        (Promise::Through, _) => {
            let from = index.replays[reader].snapshot?;
            // TRUNCATE is seen by older snapshots as well.
            let wiped =
                index.history.transactions.iter().any(|other| {
                    other.wipes && other.end.to >= from.from && other.end.from <= span.to
                });
            (!wiped).then_some(from)
        }
    }
}

/// An acknowledged append that nobody replaced is in the list at the end.
fn appends(index: &mut Index<'_>, state: State, deeds: &[Deed], order: &Order) {
    let Some(last) = index.history.last.iter().find(|seen| seen.state == state) else {
        return;
    };
    let last = last.value.clone().unwrap_or_default();
    for deed in deeds {
        let Some(element) = deed.element.filter(|_| deed.acknowledged) else {
            continue;
        };
        if last.contains(&element) {
            continue;
        }
        let replaced = deeds.iter().find(|other| {
            other.transaction != deed.transaction && other.replaces && other.end.to > deed.end.from
        });
        let number = index.replays[deed.transaction].versions.get(&state);
        // A version between two of one list is that of an element of it.
        let between = number.filter(|_| !deed.replaces && !order.place.contains_key(&element));
        let amid = between.is_some_and(|number| amid(index, state, *number));
        if replaced.is_none() || amid {
            let what = format!(
                "{element} of T{} is missing in {}, at the end {last:?}",
                deed.transaction,
                index.history.name(state)
            );
            index.report(Kind::LostWrite, &what, &[deed.transaction], &[state]);
        }
    }
}

/// Whether two observations of one list have versions around this one.
fn amid(index: &Index<'_>, state: State, number: i64) -> bool {
    let seen = |above: bool| {
        index
            .observations
            .iter()
            .filter(move |seen| {
                let version = seen.version.unwrap_or(number);
                seen.state == state
                    && if above {
                        version > number
                    } else {
                        version < number
                    }
            })
            .filter_map(|seen| Some(seen.value?[0]))
    };
    let mut below: std::collections::HashSet<Element> = seen(false).collect();
    let first = &index.history.first[state];
    if first.version.is_some_and(|version| version < number) {
        below.extend(first.value.iter().map(|list| list[0]));
    }
    seen(true).any(|first| below.contains(&first))
}

/// Every acknowledged write has made a version.
fn numbers(index: &mut Index<'_>, state: State, deeds: &[Deed]) {
    let last = index.history.last.iter().find(|seen| seen.state == state);
    let last = last.and_then(|seen| seen.version);
    let (Some(first), Some(last)) = (index.history.first[state].version, last) else {
        return;
    };
    let written = deeds
        .iter()
        .filter(|deed| deed.acknowledged && !deed.deletes)
        .count();
    if last < first + written as i64 {
        let what = format!(
            "{} went from version {first} to {last} by {written} acknowledged writes",
            index.history.name(state)
        );
        index.report(Kind::LostWrite, &what, &[], &[]);
    }
}
