//! Seeded random documents that dwell on what the format makes hard: counts around the stride, keys that
//! share prefixes and differ in length, empty containers, padding of every width.

use serde_json::{Map, Value, json};

/// SplitMix64: every run of a test sees the same documents.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 up to but not including `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound).unwrap()).unwrap()
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// How many elements a container gets; large ones only near the root.
    fn count(&mut self, depth: usize) -> usize {
        match self.below(if depth == 0 { 12 } else { 10 + 8 * depth }) {
            0 => 0,
            1 => 1,
            2 => *self.pick(&[15, 16, 17, 31, 32, 33]),
            3 if depth < 2 => *self.pick(&[63, 64, 65, 66, 95, 96, 97, 130]),
            _ => 2 + self.below(5),
        }
    }

    pub fn key(&mut self) -> String {
        match self.below(10) {
            0 => String::new(),
            1 => (*self.pick(&["é", "ключ", "日本", "𝄞", "k\u{301}", "éa", "ê"])).to_owned(),
            2 => "a".repeat(1 + self.below(6)),
            3 => format!("shared-prefix-{}", "x".repeat(self.below(40))),
            4 => format!("{}", self.below(12)),
            5 => format!("same-length-{:03}", self.below(40)),
            _ => format!("k{}", self.below(140)),
        }
    }

    fn scalar(&mut self) -> Value {
        match self.below(9) {
            0 => Value::Null,
            1 => json!(true),
            2 => json!(false),
            3 => json!(0),
            4 => json!(10_000_i64.pow(u32::try_from(self.below(5)).unwrap())),
            5 => json!(self.next().cast_signed() >> self.below(63)),
            6 => json!(""),
            7 => json!("ü€𝄞".repeat(self.below(4))),
            _ => json!("s".repeat(self.below(90))),
        }
    }

    pub fn value(&mut self, depth: usize) -> Value {
        match self.below(3 + 2 * depth) {
            0 if depth < 5 => self.object(depth),
            1 if depth < 5 => self.array(depth),
            _ => self.scalar(),
        }
    }

    pub fn array(&mut self, depth: usize) -> Value {
        (0..self.count(depth))
            .map(|_| self.value(depth + 1))
            .collect()
    }

    pub fn object(&mut self, depth: usize) -> Value {
        let mut pairs = Map::new();
        for _ in 0..self.count(depth) {
            pairs.insert(self.key(), self.value(depth + 1));
        }
        Value::Object(pairs)
    }

    /// An object that often names keys of `base`, deletes some, and reaches into some.
    pub fn updates(&mut self, base: &Value, depth: usize) -> Value {
        let Value::Object(mut pairs) = self.object(depth + 1) else {
            unreachable!()
        };
        for (key, value) in base.as_object().into_iter().flatten() {
            let update = match self.below(6) {
                0 => self.value(depth + 2),
                1 => Value::Null,
                2 => value.clone(),
                3 if value.is_object() => self.updates(value, depth + 1),
                _ => continue,
            };
            pairs.insert(key.clone(), update);
        }
        Value::Object(pairs)
    }

    /// A path that mostly follows the document, as text elements, and what lies there.
    pub fn path(&mut self, document: &Value) -> (Vec<String>, Option<Value>) {
        let mut path = Vec::new();
        let mut here = document;
        while self.below(5) > 0 {
            let (element, next) = match here {
                Value::Object(pairs) if !pairs.is_empty() && self.below(12) > 0 => {
                    let (key, value) = pairs.iter().nth(self.below(pairs.len())).unwrap();
                    (key.clone(), Some(value))
                }
                Value::Object(pairs) => {
                    let key = self.key();
                    let value = pairs.get(&key);
                    (key, value)
                }
                Value::Array(elements) if self.below(12) > 0 => {
                    let place = self.below(elements.len() + 1);
                    let value = elements.get(place);
                    if value.is_some() && self.below(3) == 0 {
                        (format!(" -{}", elements.len() - place), value)
                    } else {
                        (format!("{place}"), value)
                    }
                }
                Value::Array(_) => ("no subscript".to_owned(), None),
                // On from a scalar only now and then, since that leads nowhere.
                _ if self.below(4) > 0 => break,
                _ => (self.key(), None),
            };
            path.push(element);
            match next {
                Some(value) => here = value,
                None => return (path, None),
            }
        }
        (path, Some(here.clone()))
    }

    /// A path to one of the arrays of the document, all being equally likely.
    pub fn path_to_array(&mut self, document: &Value) -> Option<Vec<String>> {
        let mut arrays = Vec::new();
        let mut pending = vec![(Vec::new(), document)];
        while let Some((path, here)) = pending.pop() {
            let longer = |element: String| [path.clone(), vec![element]].concat();
            match here {
                Value::Object(pairs) => {
                    pending.extend(
                        pairs
                            .iter()
                            .map(|(key, value)| (longer(key.clone()), value)),
                    );
                }
                Value::Array(elements) => {
                    let values = elements.iter().enumerate();
                    pending.extend(values.map(|(place, value)| (longer(place.to_string()), value)));
                    arrays.push(path);
                }
                _ => {}
            }
        }
        (!arrays.is_empty()).then(|| self.pick(&arrays).clone())
    }
}
