//! Tests of what is held and when it may be answered.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;

/// How long a proof holds.
const HOLDS: Duration = Duration::from_secs(60);

/// A near cache for so many entries of each class.
fn new(entries: usize) -> Near {
    let limits = ClassLimits {
        entries,
        ..ClassLimits::default()
    };
    Near::new(HashMap::new(), limits, WhileDown::Bypass, HOLDS, 1000)
}

/// What it answers, or the ticket of a read that begins now.
fn look(near: &mut Near, key: &str) -> Result<Known, Ticket> {
    match near.look_up("run", key, Instant::now()) {
        Look::Hit(known, ..) => Ok(known),
        Look::Miss => Err(near.ticket("run", key)),
    }
}

fn arrive(near: &mut Near, ticket: &Ticket, key: &str, known: &Known) -> Verdict {
    let read = Read {
        version: known.as_ref().map_or(0, |state| state.version),
        known: known.clone(),
        is_told: true,
        left: None,
    };
    near.arrived(ticket, "run", key, &read, Instant::now())
}

fn hear(near: &mut Near, payload: &str) -> Vec<Event> {
    near.hear(payload, Instant::now())
}

fn begin(near: &Near) -> Beginning {
    near.begin_to_settle(Instant::now())
}

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
    Some(Arc::new(State::new(
        version,
        format!("{{\"n\": {version}}}"),
    )))
}

/// Sure, at message 10 of epoch a, holding version 1 of these.
fn holding(keys: &[&str]) -> Near {
    let mut near = new(1000);
    let beginning = begin(&near);
    near.settle(beginning, at("a", 10), "c10".into(), &[Event::StartedAnew]);
    for key in keys {
        fill(&mut near, key, 1);
    }
    near
}

fn fill(near: &mut Near, key: &str, version: i64) {
    let ticket = look(near, key).unwrap_err();
    arrive(near, &ticket, key, &state(version));
    assert_eq!(look(near, key).unwrap(), state(version));
}

fn held(near: &mut Near) -> Vec<&'static str> {
    let all = ["x", "y", "z"];
    all.into_iter()
        .filter(|key| look(near, key).is_ok())
        .collect()
}

#[test]
fn answers_nothing_before_it_has_caught_up() {
    let mut near = new(1000);
    let ticket = look(&mut near, "x").unwrap_err();
    arrive(&mut near, &ticket, "x", &state(1));
    assert!(look(&mut near, "x").is_err());
    let (ticket, beginning) = (look(&mut near, "x").unwrap_err(), begin(&near));
    near.settle(beginning, at("a", 1), "c".into(), &[Event::StartedAnew]);
    // Read before, remembered after: it may be older than what was caught up with.
    arrive(&mut near, &ticket, "x", &state(1));
    assert!(look(&mut near, "x").is_err());
    fill(&mut near, "x", 1);
}

#[test]
fn remembers_that_there_is_no_state() {
    let mut near = holding(&[]);
    let ticket = look(&mut near, "x").unwrap_err();
    arrive(&mut near, &ticket, "x", &None);
    assert_eq!(look(&mut near, "x").unwrap(), None);
    hear(&mut near, &update("x", 11));
    assert!(look(&mut near, "x").is_err());
}

#[test]
fn a_message_drops_what_it_names_and_nothing_else() {
    let mut near = holding(&["x", "y", "z"]);
    assert_eq!(
        hear(&mut near, &update("y", 11)),
        [Event::Set {
            class: "run".into(),
            key: "y".into(),
            version: Some(1)
        }]
    );
    assert_eq!(held(&mut near), ["x", "z"]);
    hear(
        &mut near,
        r#"{"class":"run","op":"delete","changes":[{"key":"x","version":null}],"seq":12,"epoch":"a"}"#,
    );
    assert_eq!(held(&mut near), ["z"]);
    hear(
        &mut near,
        r#"{"class":"swarm","op":"invalidate","pattern":"*","seq":13,"epoch":"a"}"#,
    );
    assert_eq!(held(&mut near), ["z"]);
    hear(
        &mut near,
        r#"{"class":"run","op":"invalidate","pattern":"q*","seq":14,"epoch":"a"}"#,
    );
    assert_eq!(held(&mut near), [""; 0]);
    fill(&mut near, "x", 1);
    hear(
        &mut near,
        r#"{"class":null,"op":"invalidate","pattern":"*","seq":15,"epoch":"a"}"#,
    );
    assert_eq!(held(&mut near), [""; 0]);
    assert!(near.is_sure());
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
        let mut near = holding(&[]);
        let ticket = look(&mut near, "x").unwrap_err();
        hear(&mut near, message);
        arrive(&mut near, &ticket, "x", &state(1));
        assert!(look(&mut near, "x").is_err(), "{message}");
        assert!(near.is_sure());
    }
    // A message about another state does no harm.
    let mut near = holding(&[]);
    let ticket = look(&mut near, "x").unwrap_err();
    hear(&mut near, &update("another", 11));
    arrive(&mut near, &ticket, "x", &state(1));
    assert_eq!(held(&mut near), ["x"]);
}

#[test]
fn of_two_reads_at_once_the_newer_one_stays() {
    let mut near = holding(&[]);
    let older = look(&mut near, "x").unwrap_err();
    let newer = look(&mut near, "x").unwrap_err();
    arrive(&mut near, &newer, "x", &state(2));
    arrive(&mut near, &older, "x", &state(1));
    assert_eq!(look(&mut near, "x").unwrap(), state(2));
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
        let mut near = holding(&["x"]);
        hear(&mut near, &message);
        assert!(!near.is_sure(), "{message}");
        assert_eq!(held(&mut near), [""; 0]);
        // It has not forgotten, and goes on where it is told that it missed nothing.
        let beginning = begin(&near);
        let since = near.cursor(&Some("a".into()));
        assert_eq!(since.as_deref(), Some("c10"));
        near.settle(beginning, at("a", 12), "c12".into(), &[]);
        assert!(near.is_sure());
        assert_eq!(held(&mut near), ["x"]);
        hear(&mut near, &update("q", 13));
        assert!(near.is_sure(), "13 is the next after {message}");
        hear(&mut near, &update("q", 15));
        assert!(!near.is_sure(), "15 is not the next after {message}");
    }
}

#[test]
fn a_number_that_was_made_up_does_not_hide_later_gaps() {
    let mut near = holding(&["x"]);
    hear(&mut near, &update("q", 1_000_000));
    let beginning = begin(&near);
    near.settle(beginning, at("a", 10), "c10".into(), &[]);
    assert!(near.is_sure());
    hear(&mut near, &update("q", 12));
    assert!(!near.is_sure());
}

#[test]
fn messages_heard_while_catching_up_count() {
    // The server says 12, messages 11 to 14 arrive meanwhile.
    let mut near = holding(&["x", "y"]);
    near.doubt();
    let beginning = begin(&near);
    for seq in 11..=14 {
        hear(&mut near, &update("q", seq));
    }
    near.settle(beginning, at("a", 12), "c12".into(), &[]);
    assert!(near.is_sure());
    hear(&mut near, &update("q", 15));
    assert!(near.is_sure());
    // A gap meanwhile: what the server said before does not settle it.
    near.doubt();
    let beginning = begin(&near);
    hear(&mut near, &update("q", 17));
    near.settle(beginning, at("a", 15), "c15".into(), &[]);
    assert!(!near.is_sure());
    let beginning = begin(&near);
    near.settle(beginning, at("a", 17), "c17".into(), &[]);
    assert!(near.is_sure());
    // The messages up to 19 are still on their way, the changes have been told.
    near.doubt();
    let beginning = begin(&near);
    let change = Event::change(false, "run".into(), "y".into(), Some(3));
    near.settle(beginning, at("a", 19), "c19".into(), &[change]);
    assert_eq!(held(&mut near), ["x"]);
    for seq in 18..=20 {
        hear(&mut near, &update("q", seq));
        assert!(near.is_sure(), "{seq}");
    }
}

#[test]
fn nothing_is_kept_into_another_epoch() {
    let mut near = holding(&["x"]);
    near.disconnect();
    assert!(!near.is_sure());
    assert_eq!(
        near.cursor(&Some("a".into())).as_deref(),
        Some("c10"),
        "the same run of the server"
    );
    assert_eq!(near.cursor(&Some("b".into())), None);
    assert_eq!(near.cursor(&None), None);
    // Also where the message that tells of the epoch has already arrived.
    hear(
        &mut near,
        &update("q", 1).replace("\"epoch\":\"a\"", "\"epoch\":\"b\""),
    );
    assert_eq!(near.cursor(&Some("b".into())), None);
    let beginning = begin(&near);
    near.settle(beginning, at("b", 1), "c1".into(), &[Event::StartedAnew]);
    assert!(near.is_sure());
    assert_eq!(held(&mut near), [""; 0]);
}

#[test]
fn without_epoch_nothing_is_kept_over_a_lost_connection() {
    let nowhere = Position {
        epoch: None,
        seq: None,
    };
    let mut near = new(1000);
    let beginning = begin(&near);
    near.settle(beginning, nowhere.clone(), "c1".into(), &[]);
    assert!(near.is_sure());
    near.expect(&nowhere, Instant::now());
    assert!(near.is_sure(), "nothing to compare is no doubt");
    near.doubt();
    assert_eq!(near.cursor(&None).as_deref(), Some("c1"));
    near.disconnect();
    assert_eq!(near.cursor(&None), None);
}

#[test]
fn a_heartbeat_finds_messages_that_were_never_heard() {
    let mut near = holding(&["x"]);
    near.expect(&at("a", 10), Instant::now());
    near.expect(&at("a", 9), Instant::now());
    assert!(near.is_sure());
    near.expect(&at("a", 11), Instant::now());
    assert!(!near.is_sure());
    let mut near = holding(&["x"]);
    near.expect(&at("b", 0), Instant::now());
    assert!(!near.is_sure());
}

/// Sure, with limits for class `run`.
fn limited(limits: ClassLimits, while_down: WhileDown) -> Near {
    let mut near = Near::new(HashMap::new(), limits, while_down, HOLDS, 1000);
    let beginning = begin(&near);
    near.settle(beginning, at("a", 10), "c10".into(), &[Event::StartedAnew]);
    near
}

#[test]
fn holds_no_more_entries_than_it_may_and_turns_out_the_least_recently_used() {
    let limits = ClassLimits {
        entries: 2,
        ..ClassLimits::default()
    };
    let mut near = limited(limits, WhileDown::Bypass);
    fill(&mut near, "x", 1);
    fill(&mut near, "y", 1);
    assert!(look(&mut near, "x").is_ok());
    fill(&mut near, "z", 1);
    assert_eq!(held(&mut near), ["x", "z"]);
    assert_eq!(near.take_turned_out(), 1);
}

#[test]
fn holds_no_more_bytes_than_it_may() {
    let limits = ClassLimits {
        bytes: 10_000,
        ..ClassLimits::default()
    };
    let mut near = limited(limits, WhileDown::Bypass);
    for n in 0..100 {
        let key = format!("k{n}");
        let ticket = look(&mut near, &key).unwrap_err();
        arrive(&mut near, &ticket, &key, &state(1));
        assert!(near.size().1 <= 10_000);
    }
    assert!(near.size().0 > 10, "it holds what fits");
    // One that would take a quarter of the room is answered, and not held.
    let large: Known = Some(Arc::new(State::new(1, "x".repeat(3_000))));
    let ticket = look(&mut near, "large").unwrap_err();
    assert_eq!(arrive(&mut near, &ticket, "large", &large), Verdict::Good);
    assert!(look(&mut near, "large").is_err());
}

#[test]
fn age_counts_from_the_read_and_not_from_the_last_use() {
    let limits = ClassLimits {
        ttl: Duration::from_secs(60),
        ..ClassLimits::default()
    };
    let mut near = limited(limits, WhileDown::Bypass);
    fill(&mut near, "x", 1);
    let start = Instant::now();
    for seconds in [30, 59] {
        let later = start + Duration::from_secs(seconds);
        assert!(
            matches!(near.look_up("run", "x", later), Look::Hit(..)),
            "{seconds}"
        );
    }
    let later = start + Duration::from_secs(61);
    assert!(matches!(near.look_up("run", "x", later), Look::Miss));
}

#[test]
fn unproven_answers_say_so_and_end() {
    let mut near = limited(
        ClassLimits::default(),
        WhileDown::ServeUpTo(Duration::from_secs(5)),
    );
    fill(&mut near, "x", 1);
    let now = Instant::now();
    assert!(matches!(
        near.look_up("run", "x", now),
        Look::Hit(_, _, None)
    ));
    near.disconnect();
    let later = now + Duration::from_secs(4);
    assert!(
        matches!(near.look_up("run", "x", later), Look::Hit(_, _, Some(age)) if age >= Duration::from_secs(4))
    );
    let too_late = now + Duration::from_secs(6);
    assert!(matches!(near.look_up("run", "x", too_late), Look::Miss));
    // Meanwhile somebody read something newer from the server: the copy is not answered after that.
    let ticket = near.ticket("run", "x");
    arrive(&mut near, &ticket, "x", &state(2));
    assert!(matches!(near.look_up("run", "x", later), Look::Miss));
}

#[test]
fn without_leave_nothing_unproven_is_answered() {
    let mut near = limited(ClassLimits::default(), WhileDown::Bypass);
    fill(&mut near, "x", 1);
    near.doubt();
    assert!(matches!(
        near.look_up("run", "x", Instant::now()),
        Look::Miss
    ));
}

/// Messages may wait unread: what was heard is not all.
#[test]
fn a_proof_of_the_server_ends_by_itself() {
    let mut near = holding(&["x"]);
    let start = Instant::now();
    let end = near.proven + HOLDS;
    assert!(is_hit(&mut near, end - Duration::from_millis(1)));
    assert!(!is_hit(&mut near, end) && !near.is_proven(end));
    // Nor is anything remembered, though no message has come.
    let ticket = near.ticket("run", "x");
    let read = Read {
        known: state(1),
        version: 1,
        is_told: true,
        left: None,
    };
    near.arrived(&ticket, "run", "x", &read, end);
    assert!(!is_hit(&mut near, end));
    // A heartbeat proves what is held, and counts from its question.
    near.expect(&at("a", 10), start + HOLDS / 2);
    assert!(is_hit(&mut near, start + HOLDS));
    assert!(!is_hit(&mut near, start + HOLDS / 2 + HOLDS));
}

/// With leave, an answer after the end of a proof says how old the proof is.
#[test]
fn after_the_end_of_a_proof_answers_say_so() {
    let leave = WhileDown::ServeUpTo(2 * HOLDS);
    let mut near = limited(ClassLimits::default(), leave);
    let proven = near.proven;
    fill(&mut near, "x", 1);
    let age = |near: &mut Near, now| match near.look_up("run", "x", now) {
        Look::Hit(_, _, unproven) => Some(unproven),
        Look::Miss => None,
    };
    assert_eq!(age(&mut near, proven), Some(None));
    assert_eq!(age(&mut near, proven + HOLDS), Some(Some(HOLDS)));
    assert_eq!(age(&mut near, proven + 3 * HOLDS), None);
}

/// A read that never ends.
fn flight(_number: u64) -> Flight {
    use futures_util::FutureExt;
    std::future::pending().boxed().shared()
}

#[test]
fn a_read_is_joined_until_a_write_or_a_message_or_its_end() {
    let begun = |near: &mut Near| {
        let mut begun = false;
        drop(near.fly("run", "x", |number| {
            begun = true;
            flight(number)
        }));
        begun
    };
    let mut near = holding(&[]);
    assert!(begun(&mut near));
    assert!(!begun(&mut near), "it is joined");
    near.wrote("run", "x");
    assert!(
        begun(&mut near),
        "a read from before the own write is not joined"
    );
    hear(&mut near, &update("x", 11));
    assert!(begun(&mut near), "nor one from before a message");
    hear(
        &mut near,
        r#"{"class":"run","op":"invalidate","pattern":"*","seq":12,"epoch":"a"}"#,
    );
    assert!(begun(&mut near), "nor one from before an invalidation");
    near.saw("run", "x", 9);
    assert!(
        !begun(&mut near),
        "nothing was held, so the answer goes past the floor anyway"
    );
    // Three were taken out; the end of an old one does not take out the new one.
    near.landed("run", "x", 1);
    assert!(!begun(&mut near));
    near.landed("run", "x", 4);
    assert!(begun(&mut near));
}

#[test]
fn an_own_write_is_read_back_whatever_was_under_way() {
    let mut near = holding(&["x"]);
    let before = near.ticket("run", "x");
    near.wrote("run", "x");
    assert_eq!(held(&mut near), [""; 0]);
    // A read from before the write, of the version before it.
    assert_eq!(arrive(&mut near, &before, "x", &state(1)), Verdict::Old);
    let after = near.ticket("run", "x");
    assert_eq!(arrive(&mut near, &after, "x", &state(2)), Verdict::Good);
    assert_eq!(look(&mut near, "x").unwrap(), state(2));
}

#[test]
fn a_slow_read_does_not_bring_back_what_was_turned_out() {
    let limits = ClassLimits {
        entries: 1,
        ..ClassLimits::default()
    };
    let mut near = limited(limits, WhileDown::Bypass);
    let slow = near.ticket("run", "x");
    fill(&mut near, "x", 2);
    fill(&mut near, "y", 1);
    assert_eq!(arrive(&mut near, &slow, "x", &state(1)), Verdict::Old);
    assert_eq!(held(&mut near), ["y"]);
}

#[test]
fn what_was_being_read_while_it_caught_up_is_not_remembered() {
    let mut near = holding(&[]);
    let ticket = near.ticket("run", "x");
    near.doubt();
    let beginning = begin(&near);
    near.settle(beginning, at("a", 12), "c12".into(), &[]);
    assert_eq!(arrive(&mut near, &ticket, "x", &state(1)), Verdict::Good);
    assert_eq!(held(&mut near), [""; 0]);
    fill(&mut near, "x", 1);
}

#[test]
fn a_version_seen_elsewhere_drops_an_older_copy() {
    let mut near = holding(&["x"]);
    near.saw("run", "x", 1);
    assert_eq!(held(&mut near), ["x"]);
    near.saw("run", "x", 2);
    assert_eq!(held(&mut near), [""; 0]);
}

#[test]
fn switched_off_it_holds_nothing() {
    let mut near = holding(&["x"]);
    near.enable(false);
    assert_eq!(held(&mut near), [""; 0]);
    let ticket = near.ticket("run", "x");
    arrive(&mut near, &ticket, "x", &state(1));
    assert_eq!(held(&mut near), [""; 0]);
    near.enable(true);
    fill(&mut near, "x", 1);
}

/// Told by Redis about generation 7, proven at a moment.
fn told_by_redis(at: Instant) -> Near {
    let mut near = new(1000);
    near.follow_redis(Duration::from_secs(1));
    near.start_anew(7, at);
    let beginning = near.begin_to_settle(at);
    near.prove(&beginning);
    near
}

fn arrive_from_redis(near: &mut Near, ticket: &Ticket, generation: u64, now: Instant) -> Verdict {
    let read = Read {
        known: state(1),
        version: 1,
        is_told: true,
        left: None,
    };
    near.arrived_from_l2(ticket, "run", "x", &read, now, Told::ByRedis { generation })
}

fn is_hit(near: &mut Near, now: Instant) -> bool {
    matches!(near.look_up("run", "x", now), Look::Hit(..))
}

#[test]
fn a_proof_of_redis_ends_by_itself() {
    let start = Instant::now();
    let mut near = told_by_redis(start);
    let ticket = near.ticket("run", "x");
    arrive_from_redis(&mut near, &ticket, 7, start);
    assert!(is_hit(&mut near, start + Duration::from_millis(999)));
    // As after a pause of a minute in which nothing ran here.
    let later = start + Duration::from_secs(60);
    assert!(!is_hit(&mut near, later) && !near.is_proven(later));
    let ticket = near.ticket("run", "x");
    arrive_from_redis(&mut near, &ticket, 7, later);
    let beginning = near.begin_to_settle(later);
    near.prove(&beginning);
    assert!(is_hit(&mut near, later), "the copy from before stays");
    // A doubt that came up after the beginning is not settled by the proof.
    let beginning = near.begin_to_settle(later);
    near.doubt();
    near.prove(&beginning);
    assert!(!near.is_proven(later));
}

#[test]
fn only_what_redis_tells_of_is_remembered() {
    let start = Instant::now();
    let mut near = told_by_redis(start);
    let ticket = near.ticket("run", "x");
    arrive(&mut near, &ticket, "x", &state(1));
    assert!(!is_hit(&mut near, start), "an answer of the server");
    arrive_from_redis(&mut near, &ticket, 6, start);
    assert!(!is_hit(&mut near, start), "another generation");
    near.drop_state("run", "x");
    arrive_from_redis(&mut near, &ticket, 7, start);
    assert!(!is_hit(&mut near, start), "told while it was read");
    let ticket = near.ticket("run", "x");
    arrive_from_redis(&mut near, &ticket, 7, start);
    assert!(is_hit(&mut near, start));
    near.start_anew(8, start);
    assert!(!is_hit(&mut near, start));
}
