//! Histories: each version is made from the one before by one change.

use crate::json::Json;
use crate::random::{MAX_DEPTH, Random};

/// What changes from version to version of a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An agent's run: a message is appended, a counter and a few variables move.
    Messages,
    /// Keys get other names.
    Renames,
    /// Numbers get other scales and sizes.
    Numbers,
    /// The document gets another level, or loses one.
    Nesting,
    /// Every version is a document of its own.
    Unrelated,
    /// Elements go, until nothing is left.
    Shrinking,
    /// Small changes, and now and then another document.
    Replacement,
    /// Elements and keys change places.
    Reordering,
    /// One value somewhere, at any depth, becomes another.
    Edits,
    /// Containers get empty, and full again.
    Emptying,
    /// Any of these at each step, and at times no change.
    Mixed,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 11] = [
        Kind::Messages,
        Kind::Renames,
        Kind::Numbers,
        Kind::Nesting,
        Kind::Unrelated,
        Kind::Shrinking,
        Kind::Replacement,
        Kind::Reordering,
        Kind::Edits,
        Kind::Emptying,
        Kind::Mixed,
    ];
}

/// The kind of the history with this seed: successive seeds go through all of them.
#[must_use]
pub fn kind(seed: u64) -> Kind {
    Kind::ALL[usize::try_from(seed % 11).unwrap_or(0)]
}

/// The first `versions` versions of the history with this seed. A longer one begins with a shorter one.
#[must_use]
pub fn history(seed: u64, versions: usize) -> Vec<Json> {
    let mut random = Random::new(seed.wrapping_mul(0xD134_2543_DE82_EF95));
    let mut document = first(&mut random, kind(seed));
    let mut history = Vec::with_capacity(versions);
    for _ in 0..versions {
        history.push(document.clone());
        change(&mut random, kind(seed), &mut document);
        if document.depth() > MAX_DEPTH {
            document = first(&mut random, kind(seed));
        }
    }
    history
}

fn first(random: &mut Random, kind: Kind) -> Json {
    match kind {
        Kind::Messages => Json::object([
            (
                "runId".to_owned(),
                Json::String(format!("run-{}", random.below(1000))),
            ),
            ("step".to_owned(), Json::Number("0".to_owned())),
            ("messages".to_owned(), Json::Array(Vec::new())),
            ("variables".to_owned(), random.object(2)),
        ]),
        Kind::Unrelated => random.value(0),
        _ if random.below(4) == 0 => random.array(0),
        _ => random.object(0),
    }
}

fn change(random: &mut Random, kind: Kind, document: &mut Json) {
    match kind {
        Kind::Messages => converse(random, document),
        Kind::Renames => {
            if let Json::Object(pairs) = place(random, document, is_object) {
                rename(random, pairs);
            }
        }
        Kind::Numbers => match place(random, document, |value| matches!(value, Json::Number(_))) {
            number @ Json::Number(_) => *number = random.number(),
            other => add(random, other, Random::number),
        },
        Kind::Nesting => nest(random, document),
        Kind::Unrelated => *document = random.value(0),
        Kind::Shrinking => {
            let container = place(random, document, Json::is_container);
            remove(random, container);
        }
        Kind::Replacement if random.below(6) == 0 => *document = random.object(0),
        Kind::Replacement | Kind::Edits => edit(random, document),
        Kind::Reordering => match place(random, document, Json::is_container) {
            Json::Array(elements) => random.shuffle(elements),
            Json::Object(pairs) => exchange(random, pairs),
            _ => {}
        },
        Kind::Emptying => empty(random, document),
        Kind::Mixed => {
            let any = random.pick(Kind::ALL);
            // At times the same document again, which `Mixed` drawn from all stands for.
            if any != Kind::Mixed {
                change(random, any, document);
            }
        }
    }
}

fn is_object(value: &Json) -> bool {
    matches!(value, Json::Object(_))
}

/// A value of the document that is as wanted, all being equally likely; the root when none is.
fn place<'a>(
    random: &mut Random,
    document: &'a mut Json,
    wanted: impl Fn(&Json) -> bool + Copy,
) -> &'a mut Json {
    let mut paths = Vec::new();
    find(document, wanted, &mut Vec::new(), &mut paths);
    if paths.is_empty() {
        return document;
    }
    let path = paths.swap_remove(random.below(paths.len()));
    let mut here = document;
    for step in path {
        here = match here {
            Json::Array(elements) => &mut elements[step],
            Json::Object(pairs) => &mut pairs[step].1,
            scalar => scalar,
        };
    }
    here
}

/// The paths, as numbers of elements, to all values that are as wanted.
fn find(
    value: &Json,
    wanted: impl Fn(&Json) -> bool + Copy,
    path: &mut Vec<usize>,
    found: &mut Vec<Vec<usize>>,
) {
    if wanted(value) {
        found.push(path.clone());
    }
    let mut descend = |step, value| {
        path.push(step);
        find(value, wanted, path, found);
        path.pop();
    };
    match value {
        Json::Array(elements) => {
            for (step, value) in elements.iter().enumerate() {
                descend(step, value);
            }
        }
        Json::Object(pairs) => {
            for (step, (_, value)) in pairs.iter().enumerate() {
                descend(step, value);
            }
        }
        _ => {}
    }
}

fn converse(random: &mut Random, document: &mut Json) {
    let Json::Object(_) = document else {
        *document = first(random, Kind::Messages);
        return;
    };
    let message = Json::object([
        (
            "role".to_owned(),
            Json::String(random.pick(["user", "tool", "assistant"]).to_owned()),
        ),
        ("content".to_owned(), Json::String(random.text())),
        ("cost".to_owned(), random.number()),
    ]);
    let mut messages = match document.get("messages") {
        Some(Json::Array(messages)) => messages.clone(),
        _ => Vec::new(),
    };
    messages.push(message);
    document.set("step", Json::Number(messages.len().to_string()));
    document.set("messages", Json::Array(messages));
    if random.below(3) == 0 {
        let mut variables = document.get("variables").cloned().unwrap_or(Json::Null);
        let (key, value) = (random.key(), random.value(3));
        variables.set(&key, value);
        document.set("variables", variables);
    }
}

fn rename(random: &mut Random, pairs: &mut Vec<(String, Json)>) {
    let key = random.key();
    if pairs.iter().any(|(name, _)| *name == key) {
        return;
    }
    if pairs.is_empty() {
        pairs.push((key, Json::Null));
    } else {
        let chosen = random.below(pairs.len());
        pairs[chosen].0 = key;
    }
}

/// Adds an element to a container; a scalar becomes one.
fn add(random: &mut Random, value: &mut Json, element: impl FnOnce(&mut Random) -> Json) {
    let (key, element) = (random.key(), element(random));
    match value {
        Json::Array(elements) => elements.insert(random.below(elements.len() + 1), element),
        Json::Object(_) => value.set(&key, element),
        scalar => *scalar = element,
    }
}

/// Removes an element of a container, at times several.
fn remove(random: &mut Random, value: &mut Json) {
    let times = random.pick([1, 1, 1, 5]);
    for _ in 0..times {
        match value {
            Json::Array(elements) if !elements.is_empty() => {
                elements.remove(random.below(elements.len()));
            }
            Json::Object(pairs) if !pairs.is_empty() => {
                pairs.remove(random.below(pairs.len()));
            }
            _ => return,
        }
    }
}

fn nest(random: &mut Random, document: &mut Json) {
    let levels = 1 + random.below(8);
    let inner = place(random, document, |_| true);
    if random.below(3) == 0 {
        // What is around the chosen place goes.
        let inner = inner.clone();
        *document = inner;
        return;
    }
    for _ in 0..levels {
        let wrapped = core::mem::replace(inner, Json::Null);
        *inner = match random.below(3) {
            0 => Json::Array(vec![wrapped]),
            1 => Json::Array(vec![random.scalar(), wrapped, random.scalar()]),
            _ => Json::object([(random.key(), wrapped)]),
        };
    }
}

fn edit(random: &mut Random, document: &mut Json) {
    match random.below(4) {
        0 => {
            let container = place(random, document, Json::is_container);
            add(random, container, |random| random.value(3));
        }
        1 => {
            let container = place(random, document, Json::is_container);
            remove(random, container);
        }
        _ => *place(random, document, |value| !value.is_container()) = random.value(2),
    }
}

/// Lets the values of two keys change places, and the pairs theirs, which jsonb does not see.
fn exchange(random: &mut Random, pairs: &mut [(String, Json)]) {
    let mut values: Vec<Json> = pairs.iter().map(|(_, value)| value.clone()).collect();
    if random.below(2) == 0 && !values.is_empty() {
        let (one, other) = (random.below(values.len()), random.below(values.len()));
        values.swap(one, other);
    }
    for (pair, value) in pairs.iter_mut().zip(values) {
        pair.1 = value;
    }
    random.shuffle(pairs);
}

fn empty(random: &mut Random, document: &mut Json) {
    match place(random, document, Json::is_container) {
        Json::Array(elements) if elements.len() > 1 => elements.clear(),
        Json::Object(pairs) if pairs.len() > 1 => pairs.clear(),
        other => {
            for _ in 0..4 {
                add(random, other, |random| random.value(4));
            }
        }
    }
}
