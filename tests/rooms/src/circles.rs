//! Circles of a directed graph: its strongly connected components of more than one node.

use std::collections::{BTreeMap, BTreeSet};

/// From one node to another.
pub type Edge<'a> = (&'a str, &'a str);

/// All nodes that can be reached from one.
fn reached<'a>(from: &'a str, edges: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> BTreeSet<&'a str> {
    let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(node) = open.pop() {
        for next in edges.get(node).into_iter().flatten() {
            if seen.insert(*next) {
                open.push(next);
            }
        }
    }
    seen
}

/// The circles: sets of nodes each of which can be reached from each. The graphs here are small, so every node's
/// reach is simply walked.
pub fn circles<'a>(edges: impl IntoIterator<Item = Edge<'a>>) -> Vec<BTreeSet<&'a str>> {
    let mut graph: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (from, to) in edges {
        if from != to {
            graph.entry(from).or_default().insert(to);
        }
    }
    let reach: BTreeMap<_, _> = graph
        .keys()
        .map(|node| (*node, reached(node, &graph)))
        .collect();
    let mut found: Vec<BTreeSet<&str>> = Vec::new();
    for (node, to) in &reach {
        if !to.contains(node) || found.iter().any(|circle| circle.contains(node)) {
            continue;
        }
        let back = |it: &&&str| reach.get(**it).is_some_and(|from| from.contains(node));
        found.push(to.iter().filter(back).copied().collect());
    }
    found
}
