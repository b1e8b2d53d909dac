//! Blackboards, as documents say what should come out.

#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;
use crate::support::jsonb as bytes;
use serde_json::{Value, json};

/// 2026-11-21T09:17:05Z, and so many seconds later.
fn time(seconds: i64) -> i64 {
    1_795_252_625_000_000 + seconds * 1_000_000
}

fn item(key: &str, expires_at: Option<i64>) -> Item {
    Item {
        key: key.into(),
        value: bytes(&json!({"steps": [1, 2]})),
        item_type: ItemType::Plan,
        created_by: b"planner".to_vec(),
        created_at: time(0),
        expires_at,
        access_level: AccessLevel::Group,
        tags: vec![b"urgent".to_vec(), b"draft".to_vec()],
    }
}

fn stored(key: &str) -> Value {
    json!({
        "key": key, "value": {"steps": [1, 2]}, "type": "plan", "createdBy": "planner",
        "createdAt": "2026-11-21T09:17:05.000000Z", "accessLevel": "group", "tags": ["urgent", "draft"],
    })
}

fn expiring(key: &str, at: &str) -> Value {
    let mut item = stored(key);
    item["expiresAt"] = json!(at);
    item
}

fn with(name: &str, value: Value) -> Value {
    let mut item = stored("a");
    item[name] = value;
    item
}

fn keys(selected: &[u8]) -> Vec<String> {
    let members = document::members(selected).unwrap();
    let keys = members.iter();
    keys.map(|(key, _)| String::from_utf8(key.to_vec()).unwrap())
        .collect()
}

#[test]
fn an_item_is_stored_with_all_its_fields_and_the_rest_of_the_document_stays() {
    let add = ItemChange::Add(item("a", None));
    assert_eq!(
        add.apply(None, time(0)).unwrap(),
        bytes(&json!({"blackboard": {"a": stored("a")}}))
    );
    let base = bytes(&json!({"team": ["x"], "z": null}));
    assert_eq!(
        add.apply(Some(&base), time(0)).unwrap(),
        bytes(&json!({"team": ["x"], "z": null, "blackboard": {"a": stored("a")}}))
    );
    let add = ItemChange::Add(item("b", Some(time(60))));
    assert_eq!(
        add.apply(None, time(0)).unwrap(),
        bytes(&json!({"blackboard": {"b": expiring("b", "2026-11-21T09:18:05.000000Z")}}))
    );
}

#[test]
fn what_is_there_is_not_added_and_what_is_not_there_not_updated() {
    let base = bytes(&json!({"blackboard": {"a": expiring("a", "2026-11-21T09:17:06Z")}}));
    let add = ItemChange::Add(item("a", None));
    let update = ItemChange::Update(
        b"a".to_vec(),
        ItemUpdate {
            value: Some(bytes(&json!(7))),
            ..ItemUpdate::default()
        },
    );
    // The last microsecond before it is over, and the first after.
    let (before, after) = (time(1) - 1, time(1));
    assert_eq!(add.apply(Some(&base), before), Err(ItemError::Exists));
    let updated = update.apply(Some(&base), before).unwrap();
    let mut expected = expiring("a", "2026-11-21T09:17:06Z");
    expected["value"] = json!(7);
    assert_eq!(updated, bytes(&json!({"blackboard": {"a": expected}})));
    assert_eq!(has_item(&base, b"a", before), Ok(true));

    assert_eq!(
        add.apply(Some(&base), after).unwrap(),
        bytes(&json!({"blackboard": {"a": stored("a")}}))
    );
    assert_eq!(update.apply(Some(&base), after), Err(ItemError::Missing));
    assert_eq!(has_item(&base, b"a", after), Ok(false));
    for base in [
        None,
        Some(bytes(&json!({}))),
        Some(bytes(&json!({"blackboard": {}}))),
    ] {
        let updated = update.apply(base.as_deref(), before);
        assert_eq!(updated, Err(ItemError::Missing));
    }
}

#[test]
fn put_adds_or_replaces() {
    let put = ItemChange::Put(item("a", None));
    let whole = bytes(&json!({"blackboard": {"a": stored("a")}}));
    assert_eq!(put.apply(None, time(0)).unwrap(), whole);
    let mut other = stored("a");
    other["value"] = json!("other");
    let base = bytes(&json!({"blackboard": {"a": other}}));
    assert_eq!(put.apply(Some(&base), time(0)).unwrap(), whole);
}

#[test]
fn an_update_changes_what_is_named() {
    let base = json!({"n": 1, "blackboard": {"a": stored("a"), "b": stored("b")}});
    let changed = |update: ItemUpdate| {
        let change = ItemChange::Update(b"a".to_vec(), update);
        change.apply(Some(&bytes(&base)), time(5)).unwrap()
    };
    let expected = |name: &str, value: Value| {
        let mut after = base.clone();
        after["blackboard"]["a"][name] = value;
        bytes(&after)
    };
    assert_eq!(changed(ItemUpdate::default()), bytes(&base));
    let update = ItemUpdate {
        item_type: Some(ItemType::Goal),
        ..ItemUpdate::default()
    };
    assert_eq!(changed(update), expected("type", json!("goal")));
    let update = ItemUpdate {
        expires_at: Some(time(10)),
        ..ItemUpdate::default()
    };
    let at = json!("2026-11-21T09:17:15.000000Z");
    assert_eq!(changed(update), expected("expiresAt", at));
    let update = ItemUpdate {
        access_level: Some(AccessLevel::Private),
        ..ItemUpdate::default()
    };
    assert_eq!(changed(update), expected("accessLevel", json!("private")));
    let update = ItemUpdate {
        tags: Some(Vec::new()),
        ..ItemUpdate::default()
    };
    assert_eq!(changed(update), expected("tags", json!([])));
}

#[test]
fn a_removal_leaves_the_others_and_is_content_if_there_is_nothing() {
    let remove = ItemChange::Remove(b"a".to_vec());
    let base = bytes(&json!({"n": 1, "blackboard": {"a": stored("a"), "b": stored("b")}}));
    let after = bytes(&json!({"n": 1, "blackboard": {"b": stored("b")}}));
    assert_eq!(remove.apply(Some(&base), time(0)).unwrap(), after);
    assert_eq!(remove.apply(Some(&after), time(0)).unwrap(), after);
    // No blackboard is made of nothing, and no state.
    let without = bytes(&json!({"n": 1}));
    assert_eq!(remove.apply(Some(&without), time(0)).unwrap(), without);
    assert_eq!(remove.apply(None, time(0)), Err(ItemError::Missing));
}

#[test]
fn every_change_drops_what_is_over() {
    let base = bytes(&json!({"blackboard": {
        "a": stored("a"), "over": expiring("over", "2026-11-21T09:17:05.5Z"),
        "not yet": expiring("not yet", "2026-11-21T10:17:06+01:00"),
    }}));
    let left = |change: ItemChange| {
        let after = change.apply(Some(&base), time(0) + 500_000).unwrap();
        keys(fields::object(&after, BLACKBOARD).unwrap().unwrap())
    };
    assert_eq!(
        left(ItemChange::Add(item("b", None))),
        ["a", "b", "not yet"]
    );
    assert_eq!(left(ItemChange::Put(item("a", None))), ["a", "not yet"]);
    assert_eq!(left(ItemChange::Remove(b"c".to_vec())), ["a", "not yet"]);
    assert_eq!(left(ItemChange::Remove(b"over".to_vec())), ["a", "not yet"]);
    let update = ItemChange::Update(b"a".to_vec(), ItemUpdate::default());
    assert_eq!(left(update), ["a", "not yet"]);
}

#[test]
fn items_are_found_by_what_they_are() {
    let mut goal = stored("goal");
    goal["type"] = json!("goal");
    let mut private = stored("private");
    private["accessLevel"] = json!("private");
    let mut other = stored("other");
    other["createdBy"] = json!("other");
    let mut tagged = stored("tagged");
    tagged["tags"] = json!(["done"]);
    let base = bytes(&json!({"blackboard": {
        "goal": goal, "private": private, "other": other, "tagged": tagged,
        "over": expiring("over", "2026-11-21T09:17:05Z"),
    }}));
    let none = ItemFilter::default();
    let found = |filter| keys(&select(&base, &filter, time(0)).unwrap());
    assert_eq!(found(none), ["goal", "other", "tagged", "private"]);
    let filter = ItemFilter {
        item_type: Some(ItemType::Goal),
        ..none
    };
    assert_eq!(found(filter), ["goal"]);
    let filter = ItemFilter {
        tag: Some(b"done"),
        ..none
    };
    assert_eq!(found(filter), ["tagged"]);
    let filter = ItemFilter {
        tag: Some(b"draft"),
        ..none
    };
    assert_eq!(found(filter), ["goal", "other", "private"]);
    let filter = ItemFilter {
        tag: Some(b"dra"),
        ..none
    };
    assert!(found(filter).is_empty());
    let filter = ItemFilter {
        created_by: Some(b"other"),
        ..none
    };
    assert_eq!(found(filter), ["other"]);
    let filter = ItemFilter {
        access_level: Some(AccessLevel::Private),
        ..none
    };
    assert_eq!(found(filter), ["private"]);
    let filter = ItemFilter {
        access_level: Some(AccessLevel::Group),
        tag: Some(b"done"),
        ..none
    };
    assert_eq!(found(filter), ["tagged"]);
    for empty in [json!({}), json!({"blackboard": {}})] {
        assert!(keys(&select(&bytes(&empty), &none, 0).unwrap()).is_empty());
    }
}

/// What a query, an update of item a, an addition of another item and the question for a say to a document.
fn complaints(document: &Value) -> [Option<String>; 4] {
    let document = bytes(document);
    let update = ItemChange::Update(b"a".to_vec(), ItemUpdate::default());
    let add = ItemChange::Add(item("new", None));
    let of_change = |change: ItemChange| match change.apply(Some(&document), time(0)) {
        Err(ItemError::Shape(error)) => Some(error.to_string()),
        _ => None,
    };
    [
        select(&document, &ItemFilter::default(), time(0))
            .err()
            .map(|error| error.to_string()),
        of_change(update),
        of_change(add),
        has_item(&document, b"a", time(0))
            .err()
            .map(|error| error.to_string()),
    ]
}

#[test]
fn the_field_that_is_wrong_is_named() {
    // Where the items are not where they should be, nobody goes on.
    for (document, complaint) in [
        (json!([1]), "the document is not an object"),
        (json!({"blackboard": null}), "field \"blackboard\" is null"),
        (
            json!({"blackboard": 7}),
            "field \"blackboard\" is not an object",
        ),
        (
            json!({"blackboard": []}),
            "field \"blackboard\" is not an object",
        ),
        (
            json!({"blackboard": {"a": null}}),
            "field \"blackboard.a\" is null",
        ),
        (
            json!({"blackboard": {"a": ["x"]}}),
            "field \"blackboard.a\" is not an object",
        ),
        (
            json!({"blackboard": {"a": expiring("a", "tomorrow")}}),
            "field \"blackboard.a.expiresAt\" is not a timestamp of RFC 3339",
        ),
        (
            json!({"blackboard": {"a": with("expiresAt", json!(null))}}),
            "field \"blackboard.a.expiresAt\" is null",
        ),
    ] {
        for said in complaints(&document) {
            assert_eq!(said.as_deref(), Some(complaint), "{document}");
        }
    }
    // What an item says of itself matters to those who look at it.
    for (name, value, complaint) in [
        (
            "key",
            Some(json!("b")),
            "key\" is \"b\", which is not the key that it belongs to",
        ),
        ("key", None, "key\" is missing"),
        ("value", Some(json!(null)), "value\" is null"),
        ("value", None, "value\" is missing"),
        (
            "type",
            Some(json!("wish")),
            "type\" is \"wish\", which is none of data, goal, plan, observation, hypothesis",
        ),
        ("type", None, "type\" is missing"),
        ("createdBy", Some(json!(7)), "createdBy\" is not a string"),
        ("createdBy", None, "createdBy\" is missing"),
        (
            "createdAt",
            Some(json!("now")),
            "createdAt\" is not a timestamp of RFC 3339",
        ),
        ("createdAt", None, "createdAt\" is missing"),
        (
            "accessLevel",
            Some(json!("all")),
            "accessLevel\" is \"all\", which is none of public, group, private",
        ),
        ("accessLevel", None, "accessLevel\" is missing"),
        ("tags", Some(json!("x")), "tags\" is not an array"),
        ("tags", Some(json!({"x": 1})), "tags\" is not an array"),
        ("tags", Some(json!(["x", 1])), "tags.1\" is not a string"),
        ("tags", None, "tags\" is missing"),
    ] {
        let mut item = stored("a");
        match value {
            Some(value) => item[name] = value,
            None => {
                let members = item.as_object_mut().unwrap();
                members.remove(name);
            }
        }
        let complaint = Some(format!("field \"blackboard.a.{complaint}"));
        let document = json!({"blackboard": {"a": item}});
        assert_eq!(
            complaints(&document),
            [complaint.clone(), complaint, None, None],
            "{document}"
        );
    }
}
