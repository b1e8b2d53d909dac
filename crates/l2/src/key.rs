//! Names of keys in Redis.

use core::fmt;

/// What all keys of an installation begin with.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Prefix(String);

/// A prefix with a brace, which would end up in the hash tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadPrefix {
    /// The prefix.
    pub prefix: String,
}

impl fmt::Display for BadPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the prefix \"{}\" has a brace", self.prefix)
    }
}

impl core::error::Error for BadPrefix {}

impl Prefix {
    /// A prefix, which may be empty.
    ///
    /// # Errors
    /// [`BadPrefix`].
    pub fn new(prefix: impl Into<String>) -> Result<Self, BadPrefix> {
        let prefix = prefix.into();
        if prefix.contains(['{', '}']) {
            return Err(BadPrefix { prefix });
        }
        Ok(Self(prefix))
    }

    /// The prefix as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key of a state.
    pub fn state(&self, generation: u64, class: &str, key: &str) -> String {
        let mut name = format!("{}{generation}:{{", self.0);
        push_tag(&mut name, class, key);
        name.push('}');
        name
    }

    /// Generation, class and key of the state that a key is for; `None` for any other key.
    pub fn parse(&self, name: &str) -> Option<(u64, String, String)> {
        let (generation, tag) = name.strip_prefix(&self.0)?.split_once(":{")?;
        let (class, key) = tag.strip_suffix('}')?.split_once(':')?;
        Some((generation.parse().ok()?, unescaped(class)?, unescaped(key)?))
    }

    /// The key of the meta hash.
    pub fn meta(&self) -> String {
        format!("{}{{meta}}", self.0)
    }

    /// The key that is there as long as a feeder runs.
    pub fn alive(&self) -> String {
        format!("{}{{meta}}:alive", self.0)
    }
}

/// The hash tag of a state, without its braces. Two states never share one.
pub(crate) fn tag(class: &str, key: &str) -> String {
    let mut tag = String::with_capacity(class.len() + key.len() + 1);
    push_tag(&mut tag, class, key);
    tag
}

fn push_tag(tag: &mut String, class: &str, key: &str) {
    for c in class.chars() {
        match c {
            ':' => tag.push_str("%3A"),
            c => push_escaped(tag, c),
        }
    }
    tag.push(':');
    for c in key.chars() {
        push_escaped(tag, c);
    }
}

fn push_escaped(tag: &mut String, c: char) {
    match c {
        '%' => tag.push_str("%25"),
        '{' => tag.push_str("%7B"),
        '}' => tag.push_str("%7D"),
        c => tag.push(c),
    }
}

/// What [`push_tag`] has made of a text, made undone; `None` for what it never makes.
fn unescaped(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut plain = parts.next()?.to_owned();
    for part in parts {
        plain.push(match part.get(..2)? {
            "25" => '%',
            "7B" => '{',
            "7D" => '}',
            "3A" => ':',
            _ => return None,
        });
        plain.push_str(&part[2..]);
    }
    Some(plain)
}
