//! The rules of the merge, one by one.

use serde_json::{Value, json};
use state_cache_context::{
    Base, Label, Merged, Reason, Run, Sensitivity, Source, Strategy, merge, merge_objects, put,
};

use crate::no_guard;
use crate::support::{jsonb, value};

/// A variable with what is not the default.
fn variable(name: &str, value: &Value, other: &Value) -> Value {
    let mut record = json!({"key": name, "value": value});
    let fields = record.as_object_mut().unwrap();
    fields.extend(other.as_object().unwrap().clone());
    record
}

/// A record of `x` that was set so many seconds after 1970.
fn at(second: u8, value: &Value) -> Value {
    let timestamp = format!("1970-01-01T00:00:{second:02}.000000Z");
    variable("x", value, &json!({"timestamp": timestamp}))
}

fn run(variables: &Value) -> Value {
    json!({"runId": "r", "variables": variables})
}

/// What a merge says, with the parent that it leads to. All three have the same run id here.
fn merged(
    [base, parent, child]: [&Value; 3],
    strategy: Strategy,
    look: impl FnOnce(&[Merged<'_>]),
) -> Value {
    let [base, parent, child] = [base, parent, child].map(jsonb);
    let open = |document| Run::open(document, b"r").unwrap();
    let (base, parent, child) = (open(&base), open(&parent), open(&child));
    let rows = merge(&base.into(), &parent, &child, &|_| strategy, None, no_guard).unwrap();
    look(&rows);
    let changes: Vec<_> = rows
        .into_iter()
        .filter_map(|row| row.becomes.map(|variable| (row.name, variable)))
        .collect();
    value(&put(parent.document(), &changes).unwrap())
}

/// The one row of a merge of runs that have a variable `x` at most, and the variables that the parent has then.
fn single(
    records: [Option<Value>; 3],
    strategy: Strategy,
    look: impl FnOnce(&Merged<'_>),
) -> Value {
    let [base, parent, child] =
        records.map(|record| run(&record.map_or_else(|| json!({}), |record| json!({"x": record}))));
    let mut after = merged([&base, &parent, &child], strategy, |rows| {
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].name, b"x");
        look(&rows[0]);
    });
    after["variables"].take()
}

/// What is chosen, by which strategy and why, and that nothing is left to decide.
fn assert_settled(
    row: &Merged<'_>,
    chosen: Option<&Value>,
    strategy: Option<Strategy>,
    reason: Reason,
) {
    assert_eq!(row.value.as_deref().map(value).as_ref(), chosen);
    assert_eq!((row.strategy, row.reason), (strategy, reason));
    assert_eq!(row.conflict, None);
}

#[test]
fn what_the_child_left_alone_is_no_row() {
    let mut base = run(&json!({"x": at(1, &json!(1)), "y": variable("y", &json!(2), &json!({}))}));
    let parent = run(&json!({"x": at(5, &json!(9))}));
    let mut child = base.clone();
    // Neither what stays nor what is gone, nor what is about something else than value and sensitivity.
    child["variables"].as_object_mut().unwrap().remove("y");
    child["variables"]["x"]["source"] = json!("parent");
    child["variables"]["x"]["timestamp"] = json!("1970-01-01T00:00:09Z");
    child["usage"] = json!({"credits": 3});
    base["variables"]["x"]["mutable"] = json!(false);
    let after = merged([&base, &parent, &child], Strategy::ChildWins, |rows| {
        assert_eq!(rows, []);
    });
    assert_eq!(after, parent);
}

#[test]
fn what_only_the_child_changed_is_taken() {
    let one = at(1, &json!(1));
    let mut two = at(2, &json!(2));
    two["source"] = json!("user");
    let look = |row: &Merged<'_>| {
        assert_settled(row, Some(&json!(2)), None, Reason::OnlyChildChanged);
        let becomes = row.becomes.as_ref().unwrap();
        assert_eq!(becomes.timestamp, Some(2_000_000));
        assert_eq!(becomes.source, Source::User);
    };
    // Also if the parent's record is another one with the same value, and if there was none.
    let mut late = one.clone();
    late["timestamp"] = json!("1970-01-01T00:00:59Z");
    for parent in [one.clone(), late] {
        let records = [Some(one.clone()), Some(parent), Some(two.clone())];
        let after = single(records, Strategy::ParentWins, look);
        assert_eq!(after["x"]["value"], json!(2));
    }
    let after = single([None, None, Some(two)], Strategy::ParentWins, look);
    assert_eq!(after["x"]["value"], json!(2));
}

#[test]
fn the_same_change_changes_nothing() {
    for base in [None, Some(at(1, &json!(1)))] {
        let (parent, child) = (at(2, &json!(2)), at(3, &json!(2)));
        let records = [base, Some(parent.clone()), Some(child)];
        let after = single(records, Strategy::ManualReview, |row| {
            assert_settled(row, Some(&json!(2)), None, Reason::SameChange);
            assert_eq!(row.becomes, None);
        });
        assert_eq!(after, json!({"x": parent}));
    }
}

#[test]
fn one_side_wins_where_that_is_the_strategy() {
    let (base, parent, child) = (at(1, &json!(1)), at(3, &json!(3)), at(2, &json!(2)));
    let records = [Some(base), Some(parent.clone()), Some(child)];
    let after = single(records.clone(), Strategy::ParentWins, |row| {
        let strategy = Some(Strategy::ParentWins);
        assert_settled(row, Some(&json!(3)), strategy, Reason::ParentWins);
    });
    assert_eq!(after, json!({"x": parent}));
    let after = single(records, Strategy::ChildWins, |row| {
        let strategy = Some(Strategy::ChildWins);
        assert_settled(row, Some(&json!(2)), strategy, Reason::ChildWins);
    });
    assert_eq!(after["x"]["value"], json!(2));
    assert_eq!(after["x"]["timestamp"], "1970-01-01T00:00:02.000000Z");
}

#[test]
fn the_latest_is_kept_and_the_child_s_if_equal() {
    let undated = |value: &Value| variable("x", value, &json!({}));
    let (ours, theirs) = (json!("ours"), json!("theirs"));
    for (parent, child, is_child) in [
        (at(3, &ours), at(2, &theirs), false),
        (at(2, &ours), at(3, &theirs), true),
        (at(2, &ours), at(2, &theirs), true),
        (undated(&ours), at(0, &theirs), true),
        (at(0, &ours), undated(&theirs), false),
        (undated(&ours), undated(&theirs), true),
    ] {
        // What neither merges in depth nor concatenates is kept by time as well.
        for strategy in [
            Strategy::KeepLatest,
            Strategy::MergeObjects,
            Strategy::ArrayConcat,
        ] {
            let records = [None, Some(parent.clone()), Some(child.clone())];
            let (chosen, reason) = if is_child {
                (&theirs, Reason::ChildLater)
            } else {
                (&ours, Reason::ParentLater)
            };
            let after = single(records, strategy, |row| {
                assert_settled(row, Some(chosen), Some(strategy), reason);
            });
            assert_eq!(after["x"]["value"], *chosen);
        }
    }
}

#[test]
fn a_variable_that_the_parent_removed_is_a_conflict() {
    let records = || [Some(at(1, &json!(1))), None, Some(at(2, &json!(2)))];
    let after = single(records(), Strategy::ParentWins, |row| {
        assert_settled(row, None, Some(Strategy::ParentWins), Reason::ParentWins);
    });
    assert_eq!(after, json!({}));
    for strategy in [
        Strategy::KeepLatest,
        Strategy::MergeObjects,
        Strategy::ArrayConcat,
    ] {
        let after = single(records(), strategy, |row| {
            assert_settled(row, Some(&json!(2)), Some(strategy), Reason::ChildLater);
        });
        assert_eq!(after["x"]["value"], json!(2));
    }
}

#[test]
fn objects_are_merged_and_arrays_concatenated() {
    let records = |values: [Value; 3]| {
        let [base, parent, child] = values;
        [
            Some(at(1, &base)),
            Some(at(3, &parent)),
            Some(at(2, &child)),
        ]
    };
    let objects = [
        json!({"a": 1, "b": 1}),
        json!({"a": 2, "b": 1}),
        json!({"a": 3, "b": 2}),
    ];
    let after = single(records(objects), Strategy::MergeObjects, |row| {
        let strategy = Some(Strategy::MergeObjects);
        let chosen = json!({"a": 2, "b": 2});
        assert_settled(row, Some(&chosen), strategy, Reason::ObjectsMerged);
    });
    assert_eq!(after["x"]["timestamp"], "1970-01-01T00:00:03.000000Z");

    let arrays = [json!([1]), json!([1, 2]), json!([1, 3])];
    single(records(arrays), Strategy::ArrayConcat, |row| {
        let strategy = Some(Strategy::ArrayConcat);
        let chosen = json!([1, 2, 3]);
        assert_settled(row, Some(&chosen), strategy, Reason::ArraysConcatenated);
    });

    // What leaves the parent's value as it is leaves its record too.
    let arrays = [json!([1, 5]), json!([1, 2]), json!([1])];
    single(records(arrays), Strategy::ArrayConcat, |row| {
        let strategy = Some(Strategy::ArrayConcat);
        assert_settled(
            row,
            Some(&json!([1, 2])),
            strategy,
            Reason::ArraysConcatenated,
        );
        assert_eq!(row.becomes, None);
    });
}

#[test]
fn a_merged_value_is_immutable_if_one_side_is() {
    let mut child = at(2, &json!({"c": 1}));
    child["mutable"] = json!(false);
    let records = [None, Some(at(3, &json!({"p": 1}))), Some(child)];
    let after = single(records, Strategy::MergeObjects, |row| {
        assert_eq!(row.reason, Reason::ObjectsMerged);
    });
    assert_eq!(after["x"]["mutable"], json!(false));
}

#[test]
fn a_person_is_asked() {
    let records = [
        Some(at(1, &json!(1))),
        Some(at(2, &json!(2))),
        Some(at(3, &json!(3))),
    ];
    let parent = records[1].clone().unwrap();
    let after = single(records, Strategy::ManualReview, |row| {
        assert_eq!(row.strategy, Some(Strategy::ManualReview));
        assert_eq!(row.reason, Reason::Review);
        assert_eq!(row.value.as_deref().map(value), Some(json!(2)));
        let conflict = row.conflict.as_ref().unwrap();
        assert_eq!(conflict.base.as_deref().map(value), Some(json!(1)));
        assert_eq!(conflict.parent.as_deref().map(value), Some(json!(2)));
        assert_eq!(value(&conflict.child), json!(3));
        assert_eq!(conflict.parent_timestamp, Some(2_000_000));
        assert_eq!(conflict.child_timestamp, Some(3_000_000));
    });
    assert_eq!(after, json!({"x": parent}));
}

#[test]
fn a_blocked_variable_is_always_one_more_conflict() {
    let one = run(&json!({"x": at(1, &json!(1))}));
    let child = run(&json!({"x": at(2, &json!(2))}));
    for parent in [&one, &child] {
        let mut parent = parent.clone();
        parent["conflicts"] = json!({"x": [41]});
        let after = merged([&one, &parent, &child], Strategy::ChildWins, |rows| {
            assert_eq!(rows.len(), 1);
            assert_eq!(rows[0].reason, Reason::Blocked);
            assert!(rows[0].conflict.is_some());
        });
        assert_eq!(after, parent);
    }
    // Only that one, and not what the child left alone.
    let mut parent = one.clone();
    parent["conflicts"] = json!({"x": [], "y": [41]});
    merged([&one, &parent, &child], Strategy::ChildWins, |rows| {
        assert_eq!(rows[0].reason, Reason::OnlyChildChanged);
    });
}

#[test]
fn what_is_immutable_in_the_parent_stays() {
    let mut parent = at(1, &json!(1));
    parent["mutable"] = json!(false);
    let mut child = at(2, &json!(2));
    for level in ["internal", "pii"] {
        child["sensitivity"] = json!(level);
        for base in [None, Some(parent.clone()), Some(at(0, &json!(0)))] {
            let records = [base, Some(parent.clone()), Some(child.clone())];
            let after = single(records, Strategy::ChildWins, |row| {
                assert_settled(row, Some(&json!(1)), None, Reason::Immutable);
            });
            assert_eq!(after["x"]["value"], json!(1));
            let after = after["x"]["sensitivity"].as_str().unwrap_or("internal");
            assert_eq!(after, level);
        }
    }
}

#[test]
fn sensitivity_is_the_highest_of_all() {
    let levelled = |second, level: &str| {
        let mut record = at(second, &json!(second));
        record["sensitivity"] = json!(level);
        Some(record)
    };
    for levels in [
        ["secret", "public", "internal"],
        ["public", "secret", "pii"],
        ["public", "pii", "secret"],
    ] {
        for strategy in Strategy::ALL {
            let [base, parent, child] = levels;
            let records = [levelled(1, base), levelled(2, parent), levelled(3, child)];
            let after = single(records, *strategy, |row| {
                assert_eq!(row.sensitivity, Sensitivity::Secret);
            });
            assert_eq!(after["x"]["sensitivity"], "secret", "{strategy:?}");
        }
    }
}

#[test]
fn a_rise_alone_raises_the_parent_s() {
    let base = at(1, &json!(1));
    let mut child = base.clone();
    child["sensitivity"] = json!("pii");
    for second in [1, 7] {
        let parent = at(second, &json!(second));
        let records = [
            Some(base.clone()),
            Some(parent.clone()),
            Some(child.clone()),
        ];
        let after = single(records, Strategy::ChildWins, |row| {
            assert_settled(row, Some(&json!(second)), None, Reason::OnlySensitivityRose);
        });
        assert_eq!(after["x"]["value"], parent["value"]);
        assert_eq!(after["x"]["timestamp"], parent["timestamp"]);
        assert_eq!(after["x"]["sensitivity"], "pii");
    }
    // There is nothing to raise where the parent's is as high, or gone.
    let secret = variable("x", &json!(1), &json!({"sensitivity": "secret"}));
    for parent in [json!({"x": secret}), json!({"x": child}), json!({})] {
        let [base, parent, child] = [json!({"x": base}), parent, json!({"x": child})];
        let runs = [&run(&base), &run(&parent), &run(&child)];
        let after = merged(runs, Strategy::ChildWins, |rows| assert_eq!(rows, []));
        assert_eq!(after["variables"], parent);
    }
}

#[test]
fn declared_floors_count() {
    let with_floor = |second: u8, floor: Option<&str>| {
        let mut run = run(&json!({"x": at(second, &json!(second))}));
        if let Some(floor) = floor {
            run["sensitivityMap"] = json!({"x": floor});
        }
        run
    };
    // A floor that rose in the child is a rise.
    let (base, child) = (with_floor(1, None), with_floor(1, Some("secret")));
    let after = merged([&base, &base, &child], Strategy::ChildWins, |rows| {
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].reason, Reason::OnlySensitivityRose);
    });
    assert_eq!(after["variables"]["x"]["sensitivity"], "secret");
    // One that fell is none, and a value is what its floor is, not what its record says.
    merged([&child, &base, &base], Strategy::ChildWins, |rows| {
        assert_eq!(rows, [])
    });
    let child = with_floor(2, Some("confidential"));
    let after = merged([&base, &base, &child], Strategy::ChildWins, |_| {});
    assert_eq!(after["variables"]["x"]["sensitivity"], "confidential");
}

#[test]
fn only_what_is_wanted_is_looked_at() {
    let record = |name: &str, value: u8| variable(name, &json!(value), &json!({}));
    let base = jsonb(&run(&json!({"a": record("a", 1), "b": {"wrong": 1}})));
    let child = jsonb(&run(&json!({"a": record("a", 2), "b": {"wrong": 2}})));
    let base = Run::open(&base, b"r").unwrap();
    let child = Run::open(&child, b"r").unwrap();
    let strategy = |_: &[u8]| Strategy::ChildWins;
    let is_a = |name: &[u8]| name == b"a";
    let rows = merge(
        &base.into(),
        &base,
        &child,
        &strategy,
        Some(&is_a),
        no_guard,
    )
    .unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].name, b"a");
    let error = merge(&base.into(), &base, &child, &strategy, None, no_guard).unwrap_err();
    assert_eq!(error.to_string(), "field \"variables.b.key\" is missing");
}

#[test]
fn strategies_are_asked_by_name_and_rows_are_in_order() {
    let names = ["b", "a", "longer", "c"];
    let runs = [1, 2, 3].map(|value| {
        let records =
            names.map(|name| (name.to_owned(), variable(name, &json!(value), &json!({}))));
        jsonb(&run(&records.into_iter().collect()))
    });
    let [base, parent, child] = runs.each_ref().map(|run| Run::open(run, b"r").unwrap());
    let strategy = |name: &[u8]| match name {
        b"a" => Strategy::ParentWins,
        b"b" => Strategy::ManualReview,
        _ => Strategy::ChildWins,
    };
    let rows = merge(&base.into(), &parent, &child, &strategy, None, no_guard).unwrap();
    let found: Vec<_> = rows.iter().map(|row| (row.name, row.reason)).collect();
    assert_eq!(
        found,
        [
            (&b"a"[..], Reason::ParentWins),
            (b"b", Reason::Review),
            (b"c", Reason::ChildWins),
            (b"longer", Reason::ChildWins),
        ]
    );
}

#[test]
fn an_input_in_place_of_an_inherited_value_is_no_change_of_the_parent() {
    let base = run(&json!({
        "plan": variable("plan", &json!("west"), &json!({})),
        "part": variable("part", &json!(1), &json!({})),
    }));
    let parent = run(&json!({"plan": variable("plan", &json!("walk"), &json!({}))}));
    let child = run(&json!({
        "plan": variable("plan", &json!("rest"), &json!({})),
        "part": variable("part", &json!(2), &json!({})),
    }));
    let others = jsonb(&json!({"plan": "walk", "part": null}));
    let [base, parent, child] = [base, parent, child].map(|it| jsonb(&it));
    let open = |document| Run::open(document, b"r").unwrap();
    let bases = Base {
        child: open(&base),
        parent: Some(&others),
    };
    let (parent, child) = (open(&parent), open(&child));
    let strategy = |_: &[u8]| Strategy::ParentWins;
    let rows = merge(&bases, &parent, &child, &strategy, None, no_guard).unwrap();
    let reasons: Vec<_> = rows.iter().map(|row| row.reason).collect();
    assert_eq!(reasons, [Reason::OnlyChildChanged; 2]);
}

#[test]
fn each_side_is_compared_with_what_it_has_started_from() {
    let (parent_base, base) = (json!({"a": 1}), json!({"a": 2}));
    let (parent, child) = (json!({"a": 1, "b": 1}), json!({"a": 9}));
    let bases = [parent_base, base].map(|it| jsonb(&it));
    let bases = bases.each_ref().map(|it| Some(it.as_slice()));
    let merged = merge_objects(bases, &jsonb(&parent), &jsonb(&child), false, no_guard).unwrap();
    assert_eq!(value(&merged), json!({"a": 9, "b": 1}));
}

#[test]
fn a_second_merge_takes_nothing_away_that_the_child_has_never_seen() {
    let merged_again = |base: Value, parent: Value, child: Value| {
        let others = jsonb(&json!({"x": parent}));
        let [base, parent, child] = [(base, 1), (parent, 2), (child, 3)]
            .map(|(value, second)| run(&json!({"x": at(second, &value)})))
            .map(|it| jsonb(&it));
        let open = |document| Run::open(document, b"r").unwrap();
        let bases = Base {
            child: open(&base),
            parent: Some(&others),
        };
        let (parent, child) = (open(&parent), open(&child));
        let strategy = |_: &[u8]| Strategy::ParentWins;
        let rows = merge(&bases, &parent, &child, &strategy, None, no_guard).unwrap();
        assert_eq!(rows[0].reason, Reason::OnlyChildChanged);
        value(rows[0].value.as_deref().unwrap())
    };
    assert_eq!(
        merged_again(
            json!({"a": 1, "c": 1}),
            json!({"a": 1, "c": 1, "p": 1}),
            json!({"a": 1, "c": 2})
        ),
        json!({"a": 1, "c": 2, "p": 1})
    );
    assert_eq!(
        merged_again(
            json!(["0", "of C"]),
            json!(["0", "of P", "of C"]),
            json!(["0", "of C", "again"])
        ),
        json!(["0", "of P", "of C", "again"])
    );
}

#[test]
fn a_parent_that_has_come_to_what_the_child_began_with_has_not_changed_it() {
    // A conflict between "p" and "c" was left open by the last merge, and then resolved to the child's value.
    let others = jsonb(&json!({"x": "p", "y": {"m": "p", "n": 0}}));
    let records = |x: &str, m: &str, n: u8, second: u8| {
        let time = json!({"timestamp": format!("1970-01-01T00:00:0{second}.000000Z")});
        run(&json!({
            "x": variable("x", &json!(x), &time),
            "y": variable("y", &json!({"m": m, "n": n}), &time),
        }))
    };
    let [base, parent, child] = [
        records("c", "c", 0, 1),
        records("c", "c", 5, 3),
        records("c2", "c2", 0, 2),
    ]
    .map(|it| jsonb(&it));
    let open = |document| Run::open(document, b"r").unwrap();
    let bases = Base {
        child: open(&base),
        parent: Some(&others),
    };
    let (parent, child) = (open(&parent), open(&child));
    let strategy = |name: &[u8]| match name {
        b"y" => Strategy::MergeObjects,
        _ => Strategy::ParentWins,
    };
    let rows = merge(&bases, &parent, &child, &strategy, None, no_guard).unwrap();
    let found: Vec<_> = rows
        .iter()
        .map(|row| (row.reason, value(row.value.as_deref().unwrap())))
        .collect();
    assert_eq!(
        found,
        [
            (Reason::OnlyChildChanged, json!("c2")),
            // The parent's value is the later one; of the member only the child has changed what it has.
            (Reason::ObjectsMerged, json!({"m": "c2", "n": 5})),
        ]
    );
}
