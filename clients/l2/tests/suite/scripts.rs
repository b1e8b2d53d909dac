//! The scripts of the contract, on a real Redis.

use crate::support::*;
use redis::{Commands, Connection};
use state_cache_l2::{Compression, HEADER, Value, script};

fn value(version: u64, text: &str) -> Vec<u8> {
    Value::document("c", "k", version, text, Compression::default()).unwrap()
}

fn write(redis: &mut Connection, value: &[u8]) -> i64 {
    let (answer, _): (i64, Vec<u8>) = redis::Script::new(script::WRITE)
        .key("k")
        .arg(value)
        .arg(60_000)
        .invoke(redis)
        .unwrap();
    answer
}

fn replace(redis: &mut Connection, old: &[u8], new: &[u8]) -> i64 {
    let head = &old[..HEADER.min(old.len())];
    let script = redis::Script::new(script::REPLACE);
    script
        .key("k")
        .arg(head)
        .arg(old.len())
        .arg(new)
        .arg(60_000)
        .invoke(redis)
        .unwrap()
}

#[test]
fn a_write_never_goes_back() {
    let server = Redis::start(&[]);
    let mut redis = server.connect();
    assert_eq!(write(&mut redis, &value(2, "2")), 1);
    assert_eq!(write(&mut redis, &value(1, "1")), -2);
    assert_eq!(write(&mut redis, &value(2, "2")), 0);
    assert_eq!(write(&mut redis, &value(2, "other")), -1);
    // Bytes of versions, not their text, are compared, in full.
    for version in [
        255,
        256,
        1 << 32,
        (1 << 32) + 1,
        (1 << 53) + 1,
        (1 << 53) + 2,
        u64::MAX,
    ] {
        assert_eq!(write(&mut redis, &value(version, "1")), 2, "{version}");
        assert_eq!(write(&mut redis, &value(version - 1, "1")), -2, "{version}");
    }
    redis.del::<_, ()>("k").unwrap();
    assert_eq!(write(&mut redis, &value(7, "7")), 1);
    assert_eq!(
        write(&mut redis, &Value::tombstone("c", "k", 7)),
        2,
        "it has expired"
    );
    assert_eq!(write(&mut redis, &value(7, "7")), -1);
    assert!(redis.pttl::<_, i64>("k").unwrap() > 50_000);
}

#[test]
fn what_is_not_ours_is_written_over() {
    let server = Redis::start(&[]);
    let mut redis = server.connect();
    let mut newer = value(9, "9");
    newer[4] += 1;
    let mut whole = value(9, "9");
    whole.pop();
    for foreign in [&b""[..], b"{}", b"SCL2", &newer, &whole, &[0; 100]] {
        redis.set::<_, _, ()>("k", foreign).unwrap();
        assert_eq!(write(&mut redis, &value(1, "1")), 3, "{foreign:?}");
        redis.del::<_, ()>("k").unwrap();
    }
    redis.lpush::<_, _, ()>("k", 1).unwrap();
    assert_eq!(write(&mut redis, &value(1, "1")), 3);
}

#[test]
fn a_lease_is_replaced_by_its_holder_only() {
    let server = Redis::start(&[]);
    let mut redis = server.connect();
    let (own, other) = (
        Value::lease("c", "k", [1; 16]),
        Value::lease("c", "k", [2; 16]),
    );
    redis.set::<_, _, ()>("k", &own).unwrap();
    assert_eq!(replace(&mut redis, &other, &value(1, "1")), 0);
    assert_eq!(replace(&mut redis, &own, &value(1, "1")), 1);
    assert_eq!(replace(&mut redis, &own, &value(1, "1")), 0);
    // A change takes it away.
    redis.set::<_, _, ()>("k", &own).unwrap();
    assert_eq!(write(&mut redis, &value(2, "2")), 2);
    assert_eq!(replace(&mut redis, &own, &value(1, "1")), 0);
    // So does its end.
    redis.del::<_, ()>("k").unwrap();
    assert_eq!(replace(&mut redis, &own, &value(1, "1")), 0);
    assert_eq!(replace(&mut redis, b"", &value(1, "1")), 0);
    // Nothing as the new value deletes.
    redis.set::<_, _, ()>("k", "foreign").unwrap();
    assert_eq!(replace(&mut redis, b"foreign", b""), 1);
    assert!(!redis.exists::<_, bool>("k").unwrap());
}

#[test]
fn cursor_and_generation_move_only_from_where_they_were() {
    let server = Redis::start(&[]);
    let mut redis = server.connect();
    let run = |redis: &mut Connection, text: &str, arguments: &[&str]| -> i64 {
        let script = redis::Script::new(text);
        let mut call = script.key("m");
        for argument in arguments {
            call.arg(*argument);
        }
        call.invoke(redis).unwrap()
    };
    let begin = |old, new| [old, "generation", new, "cursor", "a"];
    assert_eq!(run(&mut redis, script::BEGIN, &begin("", "5")), 1);
    assert_eq!(run(&mut redis, script::BEGIN, &begin("", "6")), 0);
    assert_eq!(run(&mut redis, script::BEGIN, &begin("4", "6")), 0);
    assert_eq!(run(&mut redis, script::MOVE_CURSOR, &["5", "a", "b"]), 1);
    assert_eq!(run(&mut redis, script::MOVE_CURSOR, &["5", "a", "c"]), 0);
    assert_eq!(run(&mut redis, script::MOVE_CURSOR, &["4", "b", "c"]), 0);
    assert_eq!(run(&mut redis, script::BEGIN, &begin("5", "6")), 1);
    let cursor: String = redis.hget("m", "cursor").unwrap();
    assert_eq!(cursor, "a");
}

/// A feeder that still fills the generation before must not say that the new one is filled.
#[test]
fn what_is_noted_of_another_generation_is_not_taken() {
    let server = Redis::start(&[]);
    let mut redis = server.connect();
    let mut note = |generation: u64| -> i64 {
        redis::Script::new(script::NOTE)
            .key("meta")
            .arg(generation)
            .arg("filled")
            .arg("done")
            .invoke(&mut redis)
            .unwrap()
    };
    assert_eq!(note(7), 0, "there is no generation");
    let mut other = server.connect();
    other
        .hset_multiple::<_, _, _, ()>("meta", &[("generation", "8"), ("filled", "0")])
        .unwrap();
    assert_eq!(note(7), 0);
    assert_eq!(other.hget::<_, _, String>("meta", "filled").unwrap(), "0");
    assert_eq!(note(8), 1);
    assert_eq!(
        other.hget::<_, _, String>("meta", "filled").unwrap(),
        "done"
    );
}
