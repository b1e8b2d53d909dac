//! The graph of moments: commits and snapshots, and what must have been before what.

use super::cycles::{Edges, Why, cycles, kind};
use super::order::{Node, Order};
use super::replay::Own;
use super::{Index, Kind, Observation};
use crate::history::record::{Level, Promise, Span, State};
use std::collections::HashMap;

/// Whose moment it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Point {
    /// All that a transaction does to `through` states becomes visible.
    Commit(usize),
    /// What it does to a state of another class does.
    CommitOf(usize, State),
    /// Its snapshot is taken.
    Snapshot(usize),
    /// The snapshot of one of its statements is taken.
    Statement(usize, usize),
    /// One of its statements looks at a state that has no snapshots; or the last look does.
    Look(Option<usize>, usize, State),
}

impl Point {
    fn transaction(self) -> Option<usize> {
        match self {
            Self::Commit(number)
            | Self::CommitOf(number, _)
            | Self::Snapshot(number)
            | Self::Statement(number, _) => Some(number),
            Self::Look(number, ..) => number,
        }
    }
}

#[derive(Default)]
struct Graph {
    numbers: HashMap<Point, usize>,
    points: Vec<(Point, Span)>,
    edges: Edges,
}

impl Graph {
    fn point(&mut self, point: Point, span: Span) -> usize {
        *self.numbers.entry(point).or_insert_with(|| {
            self.points.push((point, span));
            self.edges.push(Vec::new());
            self.points.len() - 1
        })
    }

    fn edge(&mut self, from: usize, to: usize, why: Why) {
        self.edges[from].push((to, why));
    }

    /// What was answered before another was asked is before it. A moment of mere time follows each answer, and
    /// these are in a row.
    fn add_time(&mut self) {
        let mut answers: Vec<(u64, usize)> = self
            .points
            .iter()
            .enumerate()
            .filter(|(_, (_, span))| span.to != u64::MAX)
            .map(|(number, (_, span))| (span.to, number))
            .collect();
        answers.sort_unstable();
        let first = self.points.len();
        for (at, (_, number)) in answers.iter().enumerate() {
            self.edges.push(Vec::new());
            self.edges[*number].push((first + at, Why::Time));
            if at > 0 {
                self.edges[first + at - 1].push((first + at, Why::Time));
            }
        }
        for (number, (_, span)) in self.points.iter().enumerate() {
            let earlier = answers.partition_point(|(answered, _)| *answered < span.from);
            if earlier > 0 {
                self.edges[first + earlier - 1].push((number, Why::Time));
            }
        }
    }

    fn report(&self, index: &mut Index<'_>, renamed: Option<Kind>) {
        for cycle in cycles(&self.edges, self.points.len()) {
            let shown: Vec<String> = cycle
                .iter()
                .filter_map(|(number, why)| {
                    let (point, span) = self.points.get(*number)?;
                    let because = match why {
                        Why::Writes(state) => {
                            format!("whose {} was replaced by", index.history.name(*state))
                        }
                        Why::Reads(state) => {
                            format!("whose {} was read by", index.history.name(*state))
                        }
                        Why::Misses(state) => {
                            format!("that does not see {} of", index.history.name(*state))
                        }
                        Why::Time => "answered before".into(),
                    };
                    Some(format!("{point:?} ({span}) {because}"))
                })
                .collect();
            let concerned: Vec<usize> = cycle
                .iter()
                .filter_map(|(number, _)| self.points.get(*number)?.0.transaction())
                .collect();
            let states: Vec<State> = cycle
                .iter()
                .filter_map(|(_, why)| match why {
                    Why::Writes(state) | Why::Reads(state) | Why::Misses(state) => Some(*state),
                    Why::Time => None,
                })
                .collect();
            let what = format!("{} the first of these", shown.join(" "));
            index.report(renamed.unwrap_or(kind(&cycle)), &what, &concerned, &states);
        }
    }
}

/// Finds cycles among all commits and snapshots.
pub fn check(index: &mut Index<'_>, orders: &[Order]) {
    let mut graph = Graph::default();
    let after = writers_by_start(index, orders.len());
    for (state, order) in orders.iter().enumerate() {
        for pair in order.chains.iter().flat_map(|chain| chain.windows(2)) {
            add_write(&mut graph, index, state, pair[0], pair[1]);
        }
    }
    for observation in index.observations.clone() {
        let state = observation.state;
        let Some((place, point, span)) = place_and_point(index, &observation, &orders[state])
        else {
            continue;
        };
        let found = orders[state].chains[place.0][place.1];
        let reader = observation.reader;
        let reads = graph.point(point, span);
        // Without snapshots, nothing is promised of a version that is visible and not yet acknowledged: the next
        // reader may still be told the one before.
        if let Some(writer) = found.transaction
            && found.transaction != reader
            && !matches!(point, Point::Look(Some(_), ..))
        {
            let commit = commit(&mut graph, index, writer, state);
            graph.edge(commit, reads, Why::Reads(state));
        }
        let next = orders[state].chains[place.0].get(place.1 + 1);
        let next = next.and_then(|node| node.transaction);
        // Also whoever began to write after this version was acknowledged has replaced it.
        let known = found.transaction.map_or(0, |writer| index.end(writer).to);
        let later = after[state].partition_point(|(from, ..)| *from <= known);
        let later = after[state].get(later).map(|(.., writer)| *writer);
        for writer in next.into_iter().chain(later) {
            if Some(writer) != reader {
                let commit = commit(&mut graph, index, writer, state);
                graph.edge(reads, commit, Why::Misses(state));
            }
        }
    }
    graph.add_time();
    graph.report(index, None);
}

/// Finds cycles among SERIALIZABLE transactions, whatever the time.
pub fn check_serializable(index: &mut Index<'_>, orders: &[Order]) {
    let history = index.history;
    let within = |number: Option<usize>| {
        number.filter(|number| history.transactions[*number].level == Level::Serializable)
    };
    let mut graph = Graph::default();
    let mut add = |from: Option<usize>, to: Option<usize>, why: Why| {
        if let (Some(from), Some(to)) = (within(from), within(to))
            && from != to
        {
            let [from, to] = [from, to]
                .map(|number| graph.point(Point::Commit(number), history.transactions[number].end));
            graph.edge(from, to, why);
        }
    };
    for (state, order) in orders.iter().enumerate() {
        if history.promise(state) != Promise::Through {
            continue;
        }
        for pair in order.chains.iter().flat_map(|chain| chain.windows(2)) {
            add(pair[0].transaction, pair[1].transaction, Why::Writes(state));
        }
    }
    for observation in &index.observations {
        let state = observation.state;
        let committed = observation
            .reader
            .is_some_and(|reader| index.took_effect(reader));
        if history.promise(state) != Promise::Through || !committed {
            continue;
        }
        if let Some((place, ..)) = place_and_point(index, observation, &orders[state]) {
            let chain = &orders[state].chains[place.0];
            add(
                chain[place.1].transaction,
                observation.reader,
                Why::Reads(state),
            );
            let next = chain.get(place.1 + 1).and_then(|node| node.transaction);
            add(observation.reader, next, Why::Misses(state));
        }
    }
    graph.report(index, Some(Kind::NotSerializable));
}

fn commit(graph: &mut Graph, index: &Index<'_>, number: usize, state: State) -> usize {
    let point = match index.history.promise(state) {
        Promise::Through => Point::Commit(number),
        Promise::Behind | Promise::Switching => Point::CommitOf(number, state),
    };
    graph.point(point, index.end(number))
}

/// One version after another. With one snapshot, a transaction writes only upon what it sees.
fn add_write(graph: &mut Graph, index: &Index<'_>, state: State, one: Node, next: Node) {
    let (Some(first), Some(second)) = (one.transaction, next.transaction) else {
        return;
    };
    if first == second {
        return;
    }
    let (from, to) = (
        commit(graph, index, first, state),
        commit(graph, index, second, state),
    );
    graph.edge(from, to, Why::Writes(state));
    let level = index.history.transactions[second].level;
    if index.history.promise(state) == Promise::Through
        && level != Level::Committed
        && !one.by_hand
        && let Some(span) = index.replays[second].snapshot
    {
        let snapshot = graph.point(Point::Snapshot(second), span);
        graph.edge(from, snapshot, Why::Writes(state));
    }
}

/// Which version a read found, and the moment at which it was current.
fn place_and_point(
    index: &Index<'_>,
    observation: &Observation<'_>,
    order: &Order,
) -> Option<((usize, usize), Point, Span)> {
    if observation.own {
        return None;
    }
    let (state, step) = (observation.state, observation.step);
    let promise = index.history.promise(state);
    let look = (
        Point::Look(observation.reader, step, state),
        observation.span,
    );
    let (point, span) = match observation.reader {
        None => look,
        Some(reader) => match (promise, index.history.transactions[reader].level) {
            (Promise::Through, Level::Committed) => {
                (Point::Statement(reader, step), observation.span)
            }
            (Promise::Through, _) => (Point::Snapshot(reader), index.replays[reader].snapshot?),
            (Promise::Behind, _) | (Promise::Switching, Level::Committed) => look,
            (Promise::Switching, _) => return None,
        },
    };
    let place = match observation.value {
        Some(list) => *order.place.get(list.last()?)?,
        None => {
            // TRUNCATE is seen by older snapshots as well.
            let wiped = index.history.transactions.iter().any(|other| {
                other.wipes && other.end.to >= span.from && other.end.from <= observation.span.to
            });
            order.absent.filter(|_| !wiped)?
        }
    };
    Some((place, point, span))
}

/// Whether a transaction may have written nothing of a state that it leaves absent. With one snapshot, a delete finds
/// nothing where that snapshot holds no state, and cancels what the transaction had staged before: it is as if the
/// transaction came before whoever has made the state since.
fn may_have_cancelled_out(index: &Index<'_>, number: usize, state: State) -> bool {
    let (transaction, played) = (&index.history.transactions[number], &index.replays[number]);
    let was_there = played
        .looks
        .iter()
        .any(|look| look.seen.state == state && look.own.is_none() && look.seen.value.is_some());
    transaction.level != Level::Committed
        && played.does.get(&state) == Some(&Own::Gone)
        && !played.versions.contains_key(&state)
        && !played.removed.contains_key(&state)
        && !was_there
}

/// For each state when acknowledged writers began to commit, and of those that began then or later the one that
/// was answered first.
fn writers_by_start(index: &Index<'_>, states: usize) -> Vec<Vec<(u64, u64, usize)>> {
    let mut all: Vec<Vec<(u64, u64, usize)>> = vec![Vec::new(); states];
    for (number, played) in index.replays.iter().enumerate() {
        if index.acknowledged(number) {
            let end = index.end(number);
            for state in played.does.keys() {
                if !may_have_cancelled_out(index, number, *state) {
                    all[*state].push((end.from, end.to, number));
                }
            }
        }
    }
    for writers in &mut all {
        writers.sort_unstable();
        for at in (1..writers.len()).rev() {
            let (.., to, number) = writers[at];
            if to < writers[at - 1].1 {
                writers[at - 1].1 = to;
                writers[at - 1].2 = number;
            }
        }
    }
    all
}
