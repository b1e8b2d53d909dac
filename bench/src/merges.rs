//! Many children merged into one parent: what the time grows with.
//!
//! The target is for all merges in one statement. Where each is a transaction of its own, every commit also writes a
//! version of the parent, and what that takes grows with the parent's document: shown beside it.

use std::time::Instant;

use crate::Failure;
use crate::contexts::inputs;
use crate::report::{Row, Target};
use crate::rounds::{Comparison, Cost, Plan};
use crate::size;
use crate::wire::{Connection, literal};

/// Children of the parent.
const CHILDREN: usize = 200;
/// Size of the smaller runs, in bytes of binary jsonb.
const SMALLER: usize = 2 * 1024;
/// Size of the larger runs, in bytes of binary jsonb.
const LARGER: usize = 20 * 1024;
/// Variables that children change, in runs of both sizes.
const VARIABLES: usize = 10;
/// How much longer the merges may take in documents of ten times the size: what is read of a document (comparing
/// it, copying it into and out of the cache) is little beside what is done for a merge.
const GROWTH: f64 = 1.5;
/// Turns of each side in a round: for every turn the children are made anew.
const TURNS: usize = 2;

/// How the children are merged.
#[derive(Clone, Copy)]
enum How {
    /// All in one statement.
    Together,
    /// Each in a transaction of its own.
    Alone,
}

/// One side.
#[derive(Clone, Copy)]
struct Side<'a> {
    inputs: &'a str,
    /// Variables that each child has changed.
    changed: usize,
    /// Whether the children have ended.
    ended: bool,
    how: How,
}

/// Makes a parent whose children have each changed some of its variables, and merges them; only the merges count.
/// Two children in a row change different variables, and each variable is changed by many.
fn turn(connection: &mut Connection, number: usize, side: Side<'_>) -> Result<Cost, Failure> {
    let Side {
        changed, inputs, ..
    } = side;
    let parent = format!("merging-{number}");
    let children = format!(
        "SELECT number, '{parent}-' || number AS child FROM generate_series(1, {CHILDREN}) number"
    );
    connection.query(&format!(
        "SELECT state_context_create('{parent}', inputs => {})",
        literal(inputs)
    ))?;
    let change = format!(
        "(SELECT jsonb_object_agg('part_' || (number + place) % {VARIABLES}, number * 1000 + place)
          FROM generate_series(1, {changed}) place)"
    );
    for made in [
        format!("count(state_context_child('{parent}', child))"),
        format!("count(state_context_set_many(child, {change}))"),
    ] {
        connection.query(&format!("SELECT {made} FROM ({children}) children"))?;
    }
    let complete = |connection: &mut Connection, outcome: &str| {
        connection.query(&format!(
            "SELECT count(*) FROM ({children}) children, state_context_complete(child, '{outcome}')"
        ))
    };
    if side.ended {
        complete(connection, "completed")?;
    }
    connection.query("VACUUM state_head, state_snapshot, state_context")?;
    let started = Instant::now();
    let merged = match side.how {
        How::Together => connection.value::<usize>(&format!(
            "SELECT count(*) FROM ({children}) children, state_context_merge(child)"
        ))?,
        How::Alone => {
            for child in 1..=CHILDREN {
                connection.execute("merge", &[&format!("{parent}-{child}")])?;
            }
            // What came of them is checked below.
            CHILDREN * changed
        }
    };
    let seconds = started.elapsed().as_secs_f64();
    if merged != CHILDREN * changed {
        return Err(format!("{merged} of {} variables were merged", CHILDREN * changed).into());
    }
    check_merged(connection, &parent)?;
    if !side.ended {
        complete(connection, "cancelled")?;
    }
    connection.query(&format!(
        "SELECT count(state_delete(child)) FROM ({children}) children"
    ))?;
    connection.query(&format!("SELECT state_delete('{parent}')"))?;
    Ok(Cost {
        done: CHILDREN as f64,
        seconds,
        wal: 0.0,
    })
}

/// Fails unless every variable of the parent is as the last child that was merged, and had changed it, left it.
fn check_merged(connection: &mut Connection, parent: &str) -> Result<(), Failure> {
    let first: usize = CHILDREN - VARIABLES;
    let stale: usize = connection.value(&format!(
        "SELECT count(*) FROM jsonb_each(state_get('{parent}') -> 'variables')
         WHERE key LIKE 'part\\_%' AND (value ->> 'value')::bigint < {first} * 1000"
    ))?;
    if stale > 0 {
        return Err(format!("{stale} variables of the parent are not what was merged").into());
    }
    Ok(())
}

/// Children of larger documents beside children of smaller ones, and children that have changed more variables
/// beside such that have changed one. No commit waits for the disk: the wait is the same for all, and with it any
/// growth would look small.
pub fn merges(connection: &mut Connection, plan: &Plan) -> Result<Vec<Row>, Failure> {
    let parts: Vec<_> = (0..VARIABLES)
        .map(|part| (format!("part_{part}"), "0".to_owned()))
        .collect();
    let (small, large) = (
        inputs(connection, SMALLER, &parts)?,
        inputs(connection, LARGER, &parts)?,
    );
    connection.query("SET synchronous_commit = off")?;
    connection.prepare("merge", "SELECT count(*) FROM state_context_merge($1)")?;
    let plan = Plan {
        turns: plan.turns.min(TURNS),
        ..*plan
    };
    let mut rows = Vec::new();
    let mut number = 0;
    for (how, manner, growth) in [
        (How::Together, "in one transaction", Target::AtMost(GROWTH)),
        (How::Alone, "each in a transaction of its own", Target::None),
    ] {
        for (ended, children) in [
            (true, "children that have ended"),
            (false, "running children"),
        ] {
            let side = |inputs, changed| Side {
                inputs,
                changed,
                ended,
                how,
            };
            let sides = [side(&small, 1), side(&large, 1), side(&large, VARIABLES)];
            let rounds = plan.alternate([0, 1, 2], |n: usize| {
                number += 1;
                turn(connection, number, sides[n])
            })?;
            let measured = format!("{CHILDREN} {children} merged {manner}");
            let compare = |what: String, against: String, target, sides| {
                Comparison {
                    measured: format!("{measured}, {what}: time"),
                    against,
                    target,
                    sides,
                }
                .by_duration(&rounds)
            };
            rows.extend([
                compare(
                    format!("1 changed variable in {}", size(LARGER)),
                    format!("the same in {}", size(SMALLER)),
                    growth,
                    [1, 0],
                ),
                compare(
                    format!("{VARIABLES} changed variables in {}", size(LARGER)),
                    format!("1 changed variable in {}", size(LARGER)),
                    Target::AtMost(VARIABLES as f64),
                    [2, 1],
                ),
            ]);
        }
    }
    connection.query("RESET synchronous_commit; DEALLOCATE merge")?;
    Ok(rows)
}
