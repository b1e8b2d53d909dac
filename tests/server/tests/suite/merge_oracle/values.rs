//! Values of all kinds that JSON has, few enough that two are often the same.

use serde_json::{Map, Value, json};
use state_cache_server_tests::Dice;

/// Names of members; some that must be escaped.
const MEMBERS: [&str; 5] = ["a", "b", "", "it's", "\"ü\\"];

/// A value; null only within another, since a variable has none.
pub fn value(dice: &mut Dice, depth: u64) -> Value {
    let kinds = if depth == 0 { 5 } else { 10 };
    match dice.roll(kinds) {
        0 => dice.roll(3).into(),
        1 => [
            json!(-7),
            json!(0.5),
            json!(1e300),
            json!(9007199254740993_u64),
        ][dice.roll(4) as usize]
            .clone(),
        2 => ["", "x", "it's", "\"\\ ü\n", "null"][dice.roll(5) as usize].into(),
        3 => (dice.roll(2) == 0).into(),
        4 => "y".into(),
        5..7 => array(dice, depth - 1),
        _ => object(dice, depth - 1),
    }
}

/// An array of such values, and of nulls.
pub fn array(dice: &mut Dice, depth: u64) -> Value {
    (0..dice.roll(4)).map(|_| inner(dice, depth)).collect()
}

/// An object of such values, and of nulls.
pub fn object(dice: &mut Dice, depth: u64) -> Value {
    let mut members = Map::new();
    for _ in 0..dice.roll(5) {
        let name = MEMBERS[dice.roll(MEMBERS.len() as u64) as usize];
        members.insert(name.to_owned(), inner(dice, depth));
    }
    members.into()
}

/// An element or a member.
pub fn inner(dice: &mut Dice, depth: u64) -> Value {
    if dice.roll(8) == 0 {
        return Value::Null;
    }
    value(dice, depth)
}

/// A value as a variable of this name has it: `o…` objects, `a…` arrays, others any.
pub fn value_for(dice: &mut Dice, name: &str) -> Value {
    match name.as_bytes().first() {
        Some(b'o') if dice.roll(10) > 0 => object(dice, 2),
        Some(b'a') if dice.roll(10) > 0 => array(dice, 2),
        _ => value(dice, 2),
    }
}

/// A merge patch of an object, which goes into the depth.
pub fn patch(dice: &mut Dice, depth: u64) -> Value {
    let mut members = Map::new();
    for _ in 0..1 + dice.roll(3) {
        let name = MEMBERS[dice.roll(MEMBERS.len() as u64) as usize];
        let change = match dice.roll(4) {
            0 => Value::Null,
            1 if depth > 0 => patch(dice, depth - 1),
            _ => value(dice, depth),
        };
        members.insert(name.to_owned(), change);
    }
    members.into()
}

/// A value as a literal.
pub fn literal(value: &Value) -> String {
    format!("'{}'", value.to_string().replace('\'', "''"))
}
