//! Where there is no memory for something as large as a run, every function says so and none ends the process.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use state_cache_context::{
    AccessLevel, Base, Item, ItemChange, ItemError, ItemFilter, ItemType, ItemUpdate, Problem, Run,
    Sensitivity, ShapeError, Strategy, merge, put, select, visible,
};
use state_cache_document::{DocumentError, array, object, string, update_section};
use state_cache_histories::{Refusing, refuse_each};

#[global_allocator]
static ALLOCATOR: Refusing = Refusing;

fn is_out_of_memory(error: &ShapeError) -> bool {
    matches!(error.problem, Problem::Document(DocumentError::OutOfMemory(refused)) if refused.size > 0)
}

fn refusals<T>(run: impl Fn() -> Result<T, ShapeError>) -> usize {
    refuse_each(run, |outcome| outcome.as_ref().is_err_and(is_out_of_memory))
}

/// An object of many texts, of which every `nth` is another than in that of 0.
fn texts(nth: usize) -> Vec<u8> {
    let texts = (0..2_500).map(|n| {
        let other = nth > 0 && n % nth == 0;
        (
            format!("k{n:05}"),
            string(format!("{n:032} {other}").as_bytes()).unwrap(),
        )
    });
    object(&texts.collect::<Vec<_>>()).unwrap()
}

fn list(more: &str) -> Vec<u8> {
    let texts = (0..2_500).map(|n| string(format!("{n:032}").as_bytes()).unwrap());
    let more = [string(more.as_bytes()).unwrap()];
    array(&texts.chain(more).collect::<Vec<_>>()).unwrap()
}

/// A run with a large object, a large array, a large text, and many variables.
fn run(nth: usize, more: &str) -> Vec<u8> {
    let text = |value: &[u8]| string(value).unwrap();
    let large = text("x".repeat(200_000 + nth).as_bytes());
    let record = |name: &str, value: &[u8]| {
        object(&[("key", &*text(name.as_bytes())), ("value", value)]).unwrap()
    };
    let mut variables = vec![
        ("o".to_owned(), record("o", &texts(nth))),
        ("a".to_owned(), record("a", &list(more))),
        ("s".to_owned(), record("s", &large)),
    ];
    for n in 0..800 {
        let name = format!("v{n:05}");
        let record = record(&name, &text(format!("{n} of {nth}").as_bytes()));
        variables.push((name, record));
    }
    object(&[
        ("runId", text(b"r")),
        ("variables", object(&variables).unwrap()),
    ])
    .unwrap()
}

// One test, since the counters are of the process.
#[test]
fn each_large_request_that_is_refused_ends_in_an_error() {
    let [base, parent, child] =
        [(0, "base"), (2, "parent"), (3, "child")].map(|(nth, more)| run(nth, more));
    let open = |document| Run::open(document, b"r").unwrap();
    let (base, parent_run, child_run) = (open(&base), open(&parent), open(&child));
    let bases = Base::from(base);
    let guard = || ();
    let merged = |strategy: Strategy| {
        refusals(|| merge(&bases, &parent_run, &child_run, &|_| strategy, None, guard))
    };
    let variable = child_run.variable(b"o").unwrap().unwrap();
    let secret = object(&[("sensitivity", string(b"secret").unwrap())]).unwrap();
    let hidden = object(&[("o", secret)]).unwrap();
    let with_secret = update_section(Some(&parent), b"variables", &hidden);

    let item = |key: &[u8]| Item {
        key: key.to_vec(),
        value: texts(0),
        item_type: ItemType::Data,
        created_by: b"me".to_vec(),
        created_at: 0,
        expires_at: None,
        access_level: AccessLevel::Group,
        tags: (0..5_000)
            .map(|n| format!("tag {n}").into_bytes())
            .collect(),
    };
    let mut swarm = None;
    for n in 0..3_000 {
        let key = format!("i{n:05}");
        let small = Item {
            value: string(b"v").unwrap(),
            tags: Vec::new(),
            ..item(key.as_bytes())
        };
        // One after the other would take a second.
        if n % 30 == 0 {
            swarm = Some(ItemChange::Put(small).apply(swarm.as_deref(), 0).unwrap());
        }
    }
    let (add, swarm) = (ItemChange::Add(item(b"new")), swarm.unwrap());
    let with_item = add.apply(Some(&swarm), 0).unwrap();
    let tags = Some(
        (0..6_000)
            .map(|n| format!("tag {n}").into_bytes())
            .collect(),
    );
    let update = ItemUpdate {
        value: Some(texts(2)),
        tags,
        ..ItemUpdate::default()
    };
    let changed = |change: &ItemChange, document: &[u8]| {
        let out_of_memory =
            |error: &ItemError| matches!(error, ItemError::Shape(error) if is_out_of_memory(error));
        refuse_each(
            || change.apply(Some(document), 0),
            |outcome| outcome.as_ref().is_err_and(out_of_memory),
        )
    };

    let counted = [
        merged(Strategy::MergeObjects),
        merged(Strategy::ArrayConcat),
        merged(Strategy::ChildWins),
        merged(Strategy::ParentWins),
        merged(Strategy::ManualReview),
        refusals(|| put(&parent, &[("o", variable.clone())])),
        refusals(|| parent_run.variables().map(|all| all.len())),
        refusals(|| parent_run.check_all()),
        refusals(|| visible(&parent, b"r", Sensitivity::Secret)),
        refusals(|| visible(with_secret.as_ref().unwrap(), b"r", Sensitivity::Public)),
        refusals(|| select(&with_item, &ItemFilter::default(), 0)),
        changed(&add, &swarm),
        changed(&ItemChange::Update(b"new".to_vec(), update), &with_item),
        changed(&ItemChange::Remove(b"new".to_vec()), &with_item),
    ];
    assert!(counted.iter().all(|count| *count > 0), "{counted:?}");
}
