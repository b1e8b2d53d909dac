//! Tests of what is held and when it may be answered.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;

fn at(epoch: &str, seq: i64) -> Position {
    Position {
        epoch: Some(epoch.to_owned()),
        seq: Some(seq),
    }
}

fn update(key: &str, seq: i64) -> String {
    format!(
        r#"{{"class":"run","op":"update","changes":[{{"key":"{key}","version":1}}],"seq":{seq},"epoch":"a"}}"#
    )
}

fn state(version: i64) -> Known {
    Some(Arc::new(State {
        version,
        document: format!("{{\"n\": {version}}}"),
    }))
}

/// Sure, at message 10 of epoch a, holding version 1 of these.
fn holding(keys: &[&str]) -> Memory {
    let mut memory = Memory::new(1000);
    let beginning = memory.begin_to_settle();
    memory.settle(beginning, at("a", 10), "c10".into(), &[Event::StartedAnew]);
    for key in keys {
        fill(&mut memory, key, 1);
    }
    memory
}

fn fill(memory: &mut Memory, key: &str, version: i64) {
    let ticket = memory.look_up("run", key).unwrap_err();
    memory.remember(ticket, "run", key, &state(version));
    assert_eq!(memory.look_up("run", key).unwrap(), state(version));
}

fn held(memory: &Memory) -> Vec<&str> {
    let all = ["x", "y", "z"];
    all.into_iter()
        .filter(|key| memory.look_up("run", key).is_ok())
        .collect()
}

#[test]
fn answers_nothing_before_it_has_caught_up() {
    let mut memory = Memory::new(1000);
    let ticket = memory.look_up("run", "x").unwrap_err();
    memory.remember(ticket, "run", "x", &state(1));
    assert!(memory.look_up("run", "x").is_err());
    let (ticket, beginning) = (
        memory.look_up("run", "x").unwrap_err(),
        memory.begin_to_settle(),
    );
    memory.settle(beginning, at("a", 1), "c".into(), &[Event::StartedAnew]);
    // Read before, remembered after: it may be older than what was caught up with.
    memory.remember(ticket, "run", "x", &state(1));
    assert!(memory.look_up("run", "x").is_err());
    fill(&mut memory, "x", 1);
}

#[test]
fn remembers_that_there_is_no_state() {
    let mut memory = holding(&[]);
    let ticket = memory.look_up("run", "x").unwrap_err();
    memory.remember(ticket, "run", "x", &None);
    assert_eq!(memory.look_up("run", "x").unwrap(), None);
    memory.hear(&update("x", 11));
    assert!(memory.look_up("run", "x").is_err());
}

#[test]
fn a_message_drops_what_it_names_and_nothing_else() {
    let mut memory = holding(&["x", "y", "z"]);
    assert_eq!(
        memory.hear(&update("y", 11)),
        [Event::Set {
            class: "run".into(),
            key: "y".into(),
            version: Some(1)
        }]
    );
    assert_eq!(held(&memory), ["x", "z"]);
    memory.hear(r#"{"class":"run","op":"delete","changes":[{"key":"x","version":null}],"seq":12,"epoch":"a"}"#);
    assert_eq!(held(&memory), ["z"]);
    memory.hear(r#"{"class":"swarm","op":"invalidate","pattern":"*","seq":13,"epoch":"a"}"#);
    assert_eq!(held(&memory), ["z"]);
    memory.hear(r#"{"class":"run","op":"invalidate","pattern":"q*","seq":14,"epoch":"a"}"#);
    assert_eq!(held(&memory), [""; 0]);
    fill(&mut memory, "x", 1);
    memory.hear(r#"{"class":null,"op":"invalidate","pattern":"*","seq":15,"epoch":"a"}"#);
    assert_eq!(held(&memory), [""; 0]);
    assert!(memory.is_sure());
}

#[test]
fn what_was_read_while_a_message_arrived_is_not_remembered() {
    let heard: [&str; 4] = [
        &update("x", 11),
        r#"{"class":"run","op":"invalidate","pattern":"*","seq":11,"epoch":"a"}"#,
        r#"{"class":null,"op":"invalidate","pattern":"*","seq":11,"epoch":"a"}"#,
        // A duplicate; whoever sends it, it is obeyed.
        &update("x", 10),
    ];
    for message in heard {
        let mut memory = holding(&[]);
        let ticket = memory.look_up("run", "x").unwrap_err();
        memory.hear(message);
        memory.remember(ticket, "run", "x", &state(1));
        assert!(memory.look_up("run", "x").is_err(), "{message}");
        assert!(memory.is_sure());
    }
    // A message about another state does no harm.
    let mut memory = holding(&[]);
    let ticket = memory.look_up("run", "x").unwrap_err();
    memory.hear(&update("another", 11));
    memory.remember(ticket, "run", "x", &state(1));
    assert_eq!(held(&memory), ["x"]);
}

#[test]
fn of_two_reads_at_once_the_newer_one_stays() {
    let mut memory = holding(&[]);
    let older = memory.look_up("run", "x").unwrap_err();
    let newer = memory.look_up("run", "x").unwrap_err();
    memory.remember(newer, "run", "x", &state(2));
    memory.remember(older, "run", "x", &state(1));
    assert_eq!(memory.look_up("run", "x").unwrap(), state(2));
}

#[test]
fn whatever_is_not_the_next_message_raises_a_doubt() {
    let doubtful = [
        update("q", 12),
        update("q", 11).replace("\"epoch\":\"a\"", "\"epoch\":\"b\""),
        update("q", 11).replace("\"epoch\":\"a\"", "\"epoch\":null"),
        update("q", 11).replace("\"seq\":11", "\"seq\":null"),
        update("q", 11).replace("update", "rename"),
        update("q", 11).replace("\"key\"", "\"name\""),
        "hello".to_owned(),
        String::new(),
    ];
    for message in doubtful {
        let mut memory = holding(&["x"]);
        memory.hear(&message);
        assert!(!memory.is_sure(), "{message}");
        assert_eq!(held(&memory), [""; 0]);
        // It has not forgotten, and goes on where it is told that it missed nothing.
        let beginning = memory.begin_to_settle();
        let since = memory.cursor(&Some("a".into()));
        assert_eq!(since.as_deref(), Some("c10"));
        memory.settle(beginning, at("a", 12), "c12".into(), &[]);
        assert!(memory.is_sure());
        assert_eq!(held(&memory), ["x"]);
        memory.hear(&update("q", 13));
        assert!(memory.is_sure(), "13 is the next after {message}");
        memory.hear(&update("q", 15));
        assert!(!memory.is_sure(), "15 is not the next after {message}");
    }
}

#[test]
fn a_number_that_was_made_up_does_not_hide_later_gaps() {
    let mut memory = holding(&["x"]);
    memory.hear(&update("q", 1_000_000));
    let beginning = memory.begin_to_settle();
    memory.settle(beginning, at("a", 10), "c10".into(), &[]);
    assert!(memory.is_sure());
    memory.hear(&update("q", 12));
    assert!(!memory.is_sure());
}

#[test]
fn messages_heard_while_catching_up_count() {
    // The server says 12, messages 11 to 14 arrive meanwhile.
    let mut memory = holding(&["x", "y"]);
    memory.doubt();
    let beginning = memory.begin_to_settle();
    for seq in 11..=14 {
        memory.hear(&update("q", seq));
    }
    memory.settle(beginning, at("a", 12), "c12".into(), &[]);
    assert!(memory.is_sure());
    memory.hear(&update("q", 15));
    assert!(memory.is_sure());
    // A gap meanwhile: what the server said before does not settle it.
    memory.doubt();
    let beginning = memory.begin_to_settle();
    memory.hear(&update("q", 17));
    memory.settle(beginning, at("a", 15), "c15".into(), &[]);
    assert!(!memory.is_sure());
    let beginning = memory.begin_to_settle();
    memory.settle(beginning, at("a", 17), "c17".into(), &[]);
    assert!(memory.is_sure());
    // The messages up to 19 are still on their way, the changes have been told.
    memory.doubt();
    let beginning = memory.begin_to_settle();
    let change = Event::change(false, "run".into(), "y".into(), Some(3));
    memory.settle(beginning, at("a", 19), "c19".into(), &[change]);
    assert_eq!(held(&memory), ["x"]);
    for seq in 18..=20 {
        memory.hear(&update("q", seq));
        assert!(memory.is_sure(), "{seq}");
    }
}

#[test]
fn nothing_is_kept_into_another_epoch() {
    let mut memory = holding(&["x"]);
    memory.disconnect();
    assert!(!memory.is_sure());
    assert_eq!(
        memory.cursor(&Some("a".into())).as_deref(),
        Some("c10"),
        "the same run of the server"
    );
    assert_eq!(memory.cursor(&Some("b".into())), None);
    assert_eq!(memory.cursor(&None), None);
    // Also where the message that tells of the epoch has already arrived.
    memory.hear(&update("q", 1).replace("\"epoch\":\"a\"", "\"epoch\":\"b\""));
    assert_eq!(memory.cursor(&Some("b".into())), None);
    let beginning = memory.begin_to_settle();
    memory.settle(beginning, at("b", 1), "c1".into(), &[Event::StartedAnew]);
    assert!(memory.is_sure());
    assert_eq!(held(&memory), [""; 0]);
}

#[test]
fn without_epoch_nothing_is_kept_over_a_lost_connection() {
    let nowhere = Position {
        epoch: None,
        seq: None,
    };
    let mut memory = Memory::new(1000);
    let beginning = memory.begin_to_settle();
    memory.settle(beginning, nowhere.clone(), "c1".into(), &[]);
    assert!(memory.is_sure());
    memory.expect(&nowhere);
    assert!(memory.is_sure(), "nothing to compare is no doubt");
    memory.doubt();
    assert_eq!(memory.cursor(&None).as_deref(), Some("c1"));
    memory.disconnect();
    assert_eq!(memory.cursor(&None), None);
}

#[test]
fn a_heartbeat_finds_messages_that_were_never_heard() {
    let mut memory = holding(&["x"]);
    memory.expect(&at("a", 10));
    memory.expect(&at("a", 9));
    assert!(memory.is_sure());
    memory.expect(&at("a", 11));
    assert!(!memory.is_sure());
    let mut memory = holding(&["x"]);
    memory.expect(&at("b", 0));
    assert!(!memory.is_sure());
}

#[test]
fn holds_no_more_than_it_may() {
    let mut memory = holding(&[]);
    memory.max_entries = 2;
    fill(&mut memory, "x", 1);
    fill(&mut memory, "y", 1);
    fill(&mut memory, "z", 1);
    assert_eq!(held(&memory), ["z"]);
}
