//! Cycles in a graph of moments.

use super::Kind;
use crate::history::record::State;
use std::collections::VecDeque;

/// Why one moment is before another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The second wrote the next version of this state.
    Writes(State),
    /// The second read what the first wrote.
    Reads(State),
    /// The first read the version before the one that the second wrote.
    Misses(State),
    /// The first was answered before the second was asked.
    Time,
}

/// Edges of each node, by what leads where.
pub type Edges = Vec<Vec<(usize, Why)>>;

/// So many are looked at for the shortest cycle through them.
const TRIED: usize = 100;

/// A short cycle of each knot of the graph: nodes, each with the reason why it is before the next. A node below
/// `hidden` is a moment of somebody; the others are mere time, and cost nothing to pass.
pub fn cycles(edges: &Edges, hidden: usize) -> Vec<Vec<(usize, Why)>> {
    let knot = knots(edges);
    let mut members: Vec<Vec<usize>> = vec![Vec::new(); edges.len()];
    for (node, knot) in knot.iter().enumerate().take(hidden) {
        members[*knot].push(node);
    }
    members
        .iter()
        .filter(|members| members.len() > 1)
        .filter_map(|members| {
            members
                .iter()
                .take(TRIED)
                .filter_map(|start| shortest(edges, hidden, &knot, *start))
                .min_by_key(|cycle| cycle.iter().filter(|(node, _)| *node < hidden).count())
        })
        .collect()
}

/// What a cycle is called.
pub fn kind(cycle: &[(usize, Why)]) -> Kind {
    let any = |wanted: fn(&Why) -> bool| cycle.iter().any(|(_, why)| wanted(why));
    if any(|why| matches!(why, Why::Time)) {
        Kind::Stale
    } else if any(|why| matches!(why, Why::Misses(_))) {
        Kind::BrokenSnapshot
    } else {
        Kind::WriteCycle
    }
}

/// The shortest way from a node back to it.
fn shortest(
    edges: &Edges,
    hidden: usize,
    knot: &[usize],
    start: usize,
) -> Option<Vec<(usize, Why)>> {
    let mut before: Vec<Option<(usize, Why)>> = vec![None; edges.len()];
    let mut queue = VecDeque::from([start]);
    while let Some(node) = queue.pop_front() {
        for (to, why) in &edges[node] {
            if knot[*to] != knot[start] || before[*to].is_some() {
                continue;
            }
            before[*to] = Some((node, *why));
            if *to == start {
                let mut cycle = Vec::new();
                let mut at = start;
                while let Some((from, why)) = before[at] {
                    cycle.push((from, why));
                    at = from;
                    if at == start {
                        break;
                    }
                }
                cycle.reverse();
                return Some(cycle);
            }
            if *to < hidden {
                queue.push_back(*to);
            } else {
                queue.push_front(*to);
            }
        }
    }
    None
}

/// Number of the strongly connected component of each node (Tarjan, without recursion).
fn knots(edges: &Edges) -> Vec<usize> {
    const NONE: usize = usize::MAX;
    let (mut number, mut low) = (vec![NONE; edges.len()], vec![0; edges.len()]);
    let (mut knot, mut stack, mut found) = (vec![NONE; edges.len()], Vec::new(), 0);
    let mut next = 0;
    for root in 0..edges.len() {
        if number[root] != NONE {
            continue;
        }
        let mut calls = vec![(root, 0)];
        while let Some((node, edge)) = calls.pop() {
            if edge == 0 {
                (number[node], low[node]) = (next, next);
                next += 1;
                stack.push(node);
            }
            if let Some((to, _)) = edges[node].get(edge) {
                calls.push((node, edge + 1));
                if number[*to] == NONE {
                    calls.push((*to, 0));
                } else if knot[*to] == NONE {
                    low[node] = low[node].min(number[*to]);
                }
                continue;
            }
            if low[node] == number[node] {
                while let Some(member) = stack.pop() {
                    knot[member] = found;
                    if member == node {
                        break;
                    }
                }
                found += 1;
            }
            if let Some((caller, _)) = calls.last() {
                low[*caller] = low[*caller].min(low[node]);
            }
        }
    }
    knot
}
