//! A JSON document as a tree.

use core::fmt;

/// A JSON value. Pairs keep the order in which they were added, and numbers their spelling, so that two
/// unequal values may be the same jsonb.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Json {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number as it is spelled: `1.00`, `1e400`.
    Number(String),
    /// A string, not escaped.
    String(String),
    /// An array.
    Array(Vec<Json>),
    /// The pairs of an object, no key twice.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// An object of these pairs; of those with the same key the last counts.
    pub fn object(pairs: impl IntoIterator<Item = (String, Json)>) -> Self {
        let mut object = Json::Object(Vec::new());
        for (key, value) in pairs {
            object.set(&key, value);
        }
        object
    }

    /// The value under a key of an object.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Json> {
        match self {
            Json::Object(pairs) => pairs.iter().find(|(name, _)| name == key),
            _ => None,
        }
        .map(|(_, value)| value)
    }

    /// Adds a pair to an object, or gives the key another value; nothing happens to other values.
    pub fn set(&mut self, key: &str, value: Json) {
        if let Json::Object(pairs) = self {
            match pairs.iter_mut().find(|(name, _)| name == key) {
                Some((_, old)) => *old = value,
                None => pairs.push((key.to_owned(), value)),
            }
        }
    }

    /// Whether it is an array or an object.
    #[must_use]
    pub fn is_container(&self) -> bool {
        matches!(self, Json::Array(_) | Json::Object(_))
    }

    /// Levels of containers: 0 for a scalar, 1 for `[]`.
    #[must_use]
    pub fn depth(&self) -> usize {
        match self {
            Json::Array(elements) => 1 + elements.iter().map(Json::depth).max().unwrap_or(0),
            Json::Object(pairs) => {
                let depths = pairs.iter().map(|(_, value)| value.depth());
                1 + depths.max().unwrap_or(0)
            }
            _ => 0,
        }
    }
}

impl fmt::Display for Json {
    /// The JSON text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Json::Null => f.write_str("null"),
            Json::Bool(value) => write!(f, "{value}"),
            Json::Number(spelling) => f.write_str(spelling),
            Json::String(text) => write_string(f, text),
            Json::Array(elements) => {
                f.write_str("[")?;
                for (place, element) in elements.iter().enumerate() {
                    f.write_str(if place == 0 { "" } else { "," })?;
                    write!(f, "{element}")?;
                }
                f.write_str("]")
            }
            Json::Object(pairs) => {
                f.write_str("{")?;
                for (place, (key, value)) in pairs.iter().enumerate() {
                    f.write_str(if place == 0 { "" } else { "," })?;
                    write_string(f, key)?;
                    write!(f, ":{value}")?;
                }
                f.write_str("}")
            }
        }
    }
}

fn write_string(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_str("\"")?;
    for character in text.chars() {
        match character {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            control if control < ' ' => write!(f, "\\u{:04x}", u32::from(control))?,
            other => write!(f, "{other}")?,
        }
    }
    f.write_str("\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_json() {
        let document = Json::object([
            ("a\"\\\n\u{1}é𝄞".to_owned(), Json::Number("1.00".to_owned())),
            (
                String::new(),
                Json::Array(vec![
                    Json::Null,
                    Json::Bool(true),
                    Json::String("/".to_owned()),
                    Json::Array(Vec::new()),
                    Json::Object(Vec::new()),
                ]),
            ),
        ]);
        assert_eq!(
            document.to_string(),
            "{\"a\\\"\\\\\\u000a\\u0001é𝄞\":1.00,\"\":[null,true,\"/\",[],{}]}"
        );
    }

    #[test]
    fn a_key_is_there_once() {
        let mut object = Json::object([
            ("k".to_owned(), Json::Null),
            ("k".to_owned(), Json::Bool(true)),
        ]);
        object.set("l", Json::Bool(false));
        assert_eq!(object.to_string(), "{\"k\":true,\"l\":false}");
        assert_eq!(object.get("k"), Some(&Json::Bool(true)));
        assert_eq!(object.get("m"), None);
    }
}
