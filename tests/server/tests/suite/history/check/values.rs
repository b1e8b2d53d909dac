//! What one read shows by itself.

use super::replay::{Look, Own};
use super::{Index, Kind, Observation};
use crate::history::record::{Element, Outcome, Promise, Seen, Span};
use std::collections::HashSet;
use std::rc::Rc;

/// Checks every read, and notes what it tells of others' commits.
pub fn check(index: &mut Index<'_>) {
    let history = index.history;
    let replays = Rc::clone(&index.replays);
    for (reader, played) in replays.iter().enumerate() {
        for look in &played.looks {
            check_own(index, reader, look);
        }
    }
    for seen in &history.last {
        let mut span = history.last_span;
        if let Some(crash) = &history.crash
            && history.promise(seen.state) != Promise::Through
        {
            if crash.parked.contains(&seen.state) {
                continue;
            }
            // What survived may be as old as that.
            span.from = crash.from;
        }
        observe(index, None, 0, span, seen, seen.value.as_deref(), false);
    }
}

/// Compares a read with what its transaction has done before.
fn check_own<'a>(index: &mut Index<'a>, reader: usize, look: &Look<'a>) {
    let value = look.seen.value.as_deref();
    let contradicted = match (&look.own, value) {
        (None, _) => {
            return observe(
                index,
                Some(reader),
                look.step,
                look.span,
                look.seen,
                value,
                false,
            );
        }
        (Some(Own::Gone), found) => found.is_some(),
        (Some(Own::Whole(list)), found) => found != Some(&list[..]),
        // Another may have deleted the state meanwhile.
        (Some(Own::Suffix(_)), None) => false,
        (Some(Own::Suffix(list)), Some(found)) => match found.strip_suffix(&list[..]) {
            Some(base) => {
                let base = (!base.is_empty()).then_some(base);
                return observe(
                    index,
                    Some(reader),
                    look.step,
                    look.span,
                    look.seen,
                    base,
                    true,
                );
            }
            None => true,
        },
    };
    if contradicted {
        let what = format!(
            "T{reader} step {} found {} after its own change: {:?}",
            look.step,
            index.history.seen(look.seen),
            look.own
        );
        index.report(Kind::OwnChanges, &what, &[reader], &[look.seen.state]);
    }
}

/// Checks a list that others have written, and notes it.
fn observe<'a>(
    index: &mut Index<'a>,
    reader: Option<usize>,
    step: usize,
    span: Span,
    seen: &'a Seen,
    value: Option<&'a [Element]>,
    own: bool,
) {
    let observation = Observation {
        reader,
        step,
        span,
        state: seen.state,
        version: if own { None } else { seen.version },
        value,
        own,
    };
    if let Some(list) = value {
        let Some(end) = list.last() else {
            let what = format!("an empty list: {}", index.reader(&observation));
            return index.report(Kind::Garbage, &what, &[], &[]);
        };
        let before = index.history.first[seen.state].value.as_deref();
        if index.ancient.contains(&(seen.state, *end)) && Some(list) != before {
            let what = format!("older than all of this: {}", index.reader(&observation));
            index.report(Kind::Stale, &what, &[], &[]);
        }
        for at in 0..list.len() {
            check_element(index, &observation, list, at);
        }
        let unlike: HashSet<Element> = list.iter().copied().collect();
        if unlike.len() < list.len() {
            let what = format!(
                "twice the same in {:?}: {}",
                list,
                index.reader(&observation)
            );
            let reader: Vec<usize> = reader.into_iter().collect();
            index.report(Kind::Duplicate, &what, &reader, &[observation.state]);
        }
    }
    index.observations.push(observation);
}

fn check_element(
    index: &mut Index<'_>,
    observation: &Observation<'_>,
    list: &[Element],
    at: usize,
) {
    let (state, element) = (observation.state, list[at]);
    if index.ancient.contains(&(state, element)) {
        return;
    }
    let writer = index.writers.get(&element).copied();
    let Some(writer) = writer.filter(|writer| writer.state == state) else {
        let what = format!("nobody wrote {element}: {}", index.reader(observation));
        let reader: Vec<usize> = observation.reader.into_iter().collect();
        return index.report(Kind::Garbage, &what, &reader, &[observation.state]);
    };
    let number = writer.transaction;
    let transaction = &index.history.transactions[number];
    let foreign = observation.reader != Some(number);
    let aborted = foreign && transaction.outcome == Outcome::Aborted;
    let next = list.get(at + 1);
    let replays = Rc::clone(&index.replays);
    let kept: &[Element] = match replays[number].does.get(&state) {
        Some(Own::Suffix(kept) | Own::Whole(kept)) => kept,
        _ => &[],
    };
    // What a transaction has written to a list stands there together.
    let follows = kept.iter().skip_while(|one| **one != element).nth(1);
    let kind = if aborted || !writer.kept || !foreign {
        Kind::AbortedRead
    } else if observation.span.to < transaction.end.from {
        Kind::DirtyRead
    } else if next.is_none() && !writer.last {
        Kind::IntermediateRead
    } else if writer.begins != (at == 0) || (follows.is_some() && follows != next) {
        Kind::Order
    } else {
        index.proved[number] = true;
        return;
    };
    let what = format!("{element} of T{number}: {}", index.reader(observation));
    let concerned: Vec<usize> = observation.reader.into_iter().chain([number]).collect();
    index.report(kind, &what, &concerned, &[state]);
}
