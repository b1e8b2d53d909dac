//! The order of the versions of each state.
//!
//! A list that is only appended to tells its own history: every version continues the one before. Where it is
//! replaced or deleted a new list begins; which list came first is told by version numbers, as far as anybody
//! has seen them.

use super::replay::Own;
use super::{Index, Kind};
use crate::history::record::{Element, State};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

/// A version that others could see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// The last element of the list; nothing if the state was absent.
    pub element: Option<Element>,
    /// Who made it; nobody in this history if it was there before.
    pub transaction: Option<usize>,
    /// The rows were deleted by hand.
    pub by_hand: bool,
}

/// Versions in order. Nothing is known of the order between two chains.
#[derive(Debug, Default)]
pub struct Order {
    /// The chains. The first holds all that is known by number.
    pub chains: Vec<Vec<Node>>,
    /// Where the version is that ends with an element.
    pub place: HashMap<Element, (usize, usize)>,
    /// Where the state is absent, if there is only one such place and it is known.
    pub absent: Option<(usize, usize)>,
}

/// A list and all lists that it continues.
#[derive(Debug, Default)]
struct Incarnation {
    longest: Vec<Element>,
    who: String,
    /// Version numbers by the length of the list.
    versions: BTreeMap<usize, i64>,
}

/// What is known of one state.
#[derive(Debug, Default)]
struct Known {
    incarnations: BTreeMap<Element, Incarnation>,
    elements: HashMap<i64, Element>,
    versions: HashMap<Element, i64>,
}

impl Known {
    fn list(&mut self, index: &mut Index<'_>, state: State, list: &[Element], who: &str) {
        let incarnation = self.incarnations.entry(list[0]).or_default();
        let common = list.len().min(incarnation.longest.len());
        if list[..common] != incarnation.longest[..common] {
            let what = format!(
                "{}: neither continues the other: {who}; {}",
                index.history.name(state),
                incarnation.who
            );
            let at = (0..common).find(|at| list[*at] != incarnation.longest[*at]);
            let two = at.map(|at| [list[at], incarnation.longest[at]]);
            let concerned: Vec<usize> = (two.into_iter().flatten())
                .filter_map(|element| Some(index.writers.get(&element)?.transaction))
                .collect();
            index.report(Kind::Order, &what, &concerned, &[state]);
        } else if list.len() > incarnation.longest.len() {
            incarnation.longest = list.to_vec();
            incarnation.who = who.to_string();
        }
    }

    fn version(&mut self, index: &mut Index<'_>, state: State, version: i64, last: Element) {
        let element = *self.elements.entry(version).or_insert(last);
        let number = *self.versions.entry(last).or_insert(version);
        if element != last || number != version {
            let what = format!(
                "{}: version {version} ends with {element} and with {last}, which was version {number} too",
                index.history.name(state)
            );
            let concerned: Vec<usize> = [element, last]
                .iter()
                .filter_map(|element| Some(index.writers.get(element)?.transaction))
                .collect();
            index.report(Kind::Version, &what, &concerned, &[state]);
        }
    }
}

/// Finds the order of the versions of every state.
pub fn find(index: &mut Index<'_>) -> Vec<Order> {
    let history = index.history;
    let mut known: Vec<Known> = history.states.iter().map(|_| Known::default()).collect();
    for seen in &history.first {
        if let Some(list) = &seen.value {
            known[seen.state].list(index, seen.state, list, "it was there before");
            if let Some(version) = seen.version {
                known[seen.state].version(index, seen.state, version, list[list.len() - 1]);
            }
        }
    }
    for observation in index.observations.clone() {
        if let Some(list) = observation.value {
            let (state, who) = (observation.state, index.reader(&observation));
            known[state].list(index, state, list, &who);
            if let Some(version) = observation.version {
                known[state].version(index, state, version, list[list.len() - 1]);
            }
        }
    }
    let replays = Rc::clone(&index.replays);
    let mut deleted: Vec<Vec<(i64, Node)>> = vec![Vec::new(); known.len()];
    for (number, played) in replays.iter().enumerate() {
        if !index.took_effect(number) {
            continue;
        }
        for (state, own) in &played.does {
            let version = played.versions.get(state).copied();
            match (own, version) {
                (Own::Gone, _) => {
                    let removed = played.removed.get(state).map(|version| version * 2 + 1);
                    let node = Node {
                        element: None,
                        transaction: Some(number),
                        by_hand: version.is_none(),
                    };
                    let place = version.map(|version| version * 2).or(removed);
                    deleted[*state].extend(place.map(|place| (place, node)));
                }
                (Own::Whole(list) | Own::Suffix(list), Some(version)) => {
                    let last = list[list.len() - 1];
                    known[*state].version(index, *state, version, last);
                    if let Own::Whole(list) = own {
                        let who = format!("T{number} wrote {list:?}");
                        known[*state].list(index, *state, list, &who);
                    }
                }
                (_, None) => {}
            }
        }
    }
    let states = known.into_iter().zip(deleted).enumerate();
    states
        .map(|(state, (known, deleted))| put_in_order(index, state, known, deleted))
        .collect()
}

fn put_in_order(
    index: &mut Index<'_>,
    state: State,
    mut known: Known,
    deleted: Vec<(i64, Node)>,
) -> Order {
    let mut order = Order::default();
    // First and last number, and what has them.
    let mut numbered: Vec<(i64, i64, Vec<Node>)> = Vec::new();
    let mut others = Vec::new();
    for incarnation in known.incarnations.values_mut() {
        for (at, element) in incarnation.longest.iter().enumerate() {
            if let Some(version) = known.versions.get(element) {
                incarnation.versions.insert(at, *version);
            }
        }
        let numbers: Vec<i64> = incarnation.versions.values().copied().collect();
        let nodes = nodes(index, state, &incarnation.longest);
        if !numbers.is_sorted() {
            let what = format!(
                "{}: numbers run backwards: {:?} by length of {:?}",
                index.history.name(state),
                incarnation.versions,
                incarnation.longest
            );
            index.report(Kind::Version, &what, &[], &[]);
        }
        match (numbers.iter().min(), numbers.iter().max()) {
            (Some(first), Some(last)) => numbered.push((first * 2, last * 2, nodes)),
            _ => others.push(nodes),
        }
    }
    numbered.extend(
        deleted
            .into_iter()
            .map(|(place, node)| (place, place, vec![node])),
    );
    numbered.sort_by_key(|(first, ..)| *first);
    for pair in numbered.windows(2) {
        if pair[0].1 >= pair[1].0 {
            let what = format!(
                "{}: two lists at a time, of doubled versions {}..{} and {}..{}",
                index.history.name(state),
                pair[0].0,
                pair[0].1,
                pair[1].0,
                pair[1].1
            );
            let concerned: Vec<usize> = [pair[0].2.last(), pair[1].2.first()]
                .into_iter()
                .flatten()
                .filter_map(|node| node.transaction)
                .collect();
            index.report(Kind::Version, &what, &concerned, &[state]);
        }
    }
    let mut main = Vec::new();
    if index.history.first[state].value.is_none() {
        main.push(Node {
            element: None,
            transaction: None,
            by_hand: false,
        });
    }
    main.extend(numbered.into_iter().flat_map(|(.., nodes)| nodes));
    order.chains.push(main);
    order.chains.extend(others);
    for (chain, nodes) in order.chains.iter().enumerate() {
        for (at, node) in nodes.iter().enumerate() {
            if let Some(element) = node.element {
                order.place.insert(element, (chain, at));
            }
        }
    }
    let absences = index.replays.iter().enumerate().filter(|(number, played)| {
        let outcome = index.history.transactions[*number].outcome;
        played.does.get(&state) == Some(&Own::Gone)
            && outcome != crate::history::record::Outcome::Aborted
    });
    let before = usize::from(index.history.first[state].value.is_none());
    if absences.count() + before == 1 {
        order.absent = order.chains[0]
            .iter()
            .position(|node| node.element.is_none())
            .map(|at| (0, at));
    }
    order
}

/// The versions that a list went through, as far as others could see them.
fn nodes(index: &Index<'_>, state: State, list: &[Element]) -> Vec<Node> {
    let before = index.history.first[state].value.as_deref().unwrap_or(&[]);
    let mut nodes = Vec::new();
    for element in list {
        let writer = index.writers.get(element).filter(|writer| writer.last);
        let transaction = if before.last() == Some(element) {
            None
        } else if let Some(writer) = writer {
            Some(writer.transaction)
        } else {
            continue;
        };
        nodes.push(Node {
            element: Some(*element),
            transaction,
            by_hand: false,
        });
    }
    nodes
}
