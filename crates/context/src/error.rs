//! Why a document is no context.

use core::fmt;

use state_cache_document::DocumentError;
use state_cache_memory::OutOfMemory;

/// The first field that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShapeError {
    /// Where it lies: keys and places in arrays with dots between them, `variables.plan.sensitivity`. Empty for the
    /// document as a whole. For people to read: long names are cut, and characters that would break the line escaped.
    pub field: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// It is not there, and has no default.
    Missing,
    /// It is `null`.
    Null,
    /// It is no object.
    NotObject,
    /// It is no array.
    NotArray,
    /// It is no string.
    NotText,
    /// It is neither `true` nor `false`.
    NotBoolean,
    /// It is no number.
    NotNumber,
    /// It is a number below zero.
    Negative,
    /// It is a string that is no timestamp of RFC 3339.
    NotTimestamp,
    /// It is none of the values that it may have.
    UnknownValue {
        /// What it is.
        found: String,
        /// What it may be.
        known: String,
    },
    /// There is no such field.
    UnknownName {
        /// The fields that there are.
        known: String,
    },
    /// It repeats the key under which it is stored, and is another.
    NotTheKey {
        /// What it is.
        found: String,
    },
    /// The document cannot be read, or the result cannot be written.
    Document(DocumentError),
}

impl ShapeError {
    /// A problem with a document as a whole, until it is said where that lies.
    pub(crate) fn whole(problem: Problem) -> Self {
        ShapeError {
            field: String::new(),
            problem,
        }
    }

    /// A problem with the field under this key.
    pub(crate) fn new(key: &[u8], problem: Problem) -> Self {
        Self::whole(problem).within(key)
    }

    /// The same of a document that lies under this key of another.
    pub(crate) fn within(mut self, key: &[u8]) -> Self {
        // The empty key would not be seen between the dots.
        let field = if key.is_empty() {
            "\"\"".to_owned()
        } else {
            excerpt(key)
        };
        self.field = if self.field.is_empty() {
            field
        } else {
            format!("{field}.{}", self.field)
        };
        self
    }

    /// The same of a document that is an element of an array.
    pub(crate) fn within_element(self, place: usize) -> Self {
        self.within(place.to_string().as_bytes())
    }

    /// The values or names that there are, where that is what is wrong.
    #[must_use]
    pub fn known(&self) -> Option<&str> {
        match &self.problem {
            Problem::UnknownValue { known, .. } | Problem::UnknownName { known } => Some(known),
            _ => None,
        }
    }
}

impl From<OutOfMemory> for ShapeError {
    fn from(refused: OutOfMemory) -> Self {
        DocumentError::from(refused).into()
    }
}

impl From<DocumentError> for ShapeError {
    fn from(error: DocumentError) -> Self {
        Self::whole(match error {
            DocumentError::NotAnObject => Problem::NotObject,
            DocumentError::NotAnArray => Problem::NotArray,
            other => Problem::Document(other),
        })
    }
}

impl fmt::Display for ShapeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Problem::Document(error) = &self.problem {
            // The same whether a field or all of it is damaged: the extent is not known.
            return write!(f, "{error}");
        }
        if self.field.is_empty() {
            f.write_str("the document ")?;
        } else {
            write!(f, "field \"{}\" ", self.field)?;
        }
        match &self.problem {
            Problem::Missing => f.write_str("is missing"),
            Problem::Null => f.write_str("is null"),
            Problem::NotObject => f.write_str("is not an object"),
            Problem::NotArray => f.write_str("is not an array"),
            Problem::NotText => f.write_str("is not a string"),
            Problem::NotBoolean => f.write_str("is not a boolean"),
            Problem::NotNumber => f.write_str("is not a number"),
            Problem::Negative => f.write_str("is negative"),
            Problem::NotTimestamp => f.write_str("is not a timestamp of RFC 3339"),
            Problem::UnknownValue { found, known } => {
                write!(f, "is \"{found}\", which is none of {known}")
            }
            Problem::UnknownName { known } => write!(f, "is none of {known}"),
            Problem::NotTheKey { found } => {
                write!(f, "is \"{found}\", which is not the key that it belongs to")
            }
            Problem::Document(error) => write!(f, "{error}"),
        }
    }
}

impl core::error::Error for ShapeError {}

/// Characters of a key or value that a message shows.
const SHOWN: usize = 64;

/// A key or value as a message shows it: in one line, and not endless.
pub(crate) fn excerpt(text: &[u8]) -> String {
    // No character is longer than four bytes; one that the end cuts is beyond what is shown.
    let front = text.get(..4 * (SHOWN + 1)).unwrap_or(text);
    let front = match str::from_utf8(front) {
        Ok(front) => front,
        Err(error) if error.error_len().is_none() && front.len() < text.len() => {
            str::from_utf8(&front[..error.valid_up_to()]).unwrap_or_default()
        }
        // Bytes of another encoding, each of which shows as an escape.
        Err(_) => &front.escape_ascii().to_string(),
    };
    let mut shown = String::with_capacity(front.len().min(SHOWN));
    for (place, character) in front.chars().enumerate() {
        if place == SHOWN {
            shown.push_str("...");
            break;
        }
        if character.is_control() || matches!(character, '\u{2028}' | '\u{2029}') {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_is_named_from_the_outside_in() {
        let error = ShapeError::new(
            b"sensitivity",
            Problem::UnknownValue {
                found: "hidden".to_owned(),
                known: "public, secret".to_owned(),
            },
        )
        .within(b"plan")
        .within(b"variables");
        assert_eq!(
            error.to_string(),
            "field \"variables.plan.sensitivity\" is \"hidden\", which is none of public, secret"
        );
        assert_eq!(error.known(), Some("public, secret"));
        let error = ShapeError::new(b"key", Problem::Missing).within_element(3);
        assert_eq!(error.to_string(), "field \"3.key\" is missing");
        assert_eq!(error.known(), None);
        let error = ShapeError::new(b"", Problem::Null).within(b"variables");
        assert_eq!(error.field, "variables.\"\"");
    }

    #[test]
    fn a_document_that_is_wrong_as_a_whole_has_no_field() {
        let error = ShapeError::from(DocumentError::NotAnObject);
        assert_eq!(error.to_string(), "the document is not an object");
        let error = ShapeError::from(DocumentError::Damaged).within(b"variables");
        assert_eq!(error.to_string(), "the document is damaged");
        assert_eq!(error.field, "variables");
    }

    #[test]
    fn a_message_is_one_line_of_bounded_length() {
        let name = "a\nb\u{2028}".repeat(1_000_000);
        let message = ShapeError::new(name.as_bytes(), Problem::Null).to_string();
        assert!(
            message.starts_with("field \"a\\nb\\u{2028}a\\nb"),
            "{message}"
        );
        assert!(!message.contains(['\n', '\u{2028}']));
        assert!(message.ends_with("...\" is null") && message.len() < 1_000);
        assert_eq!(excerpt("é".repeat(SHOWN).as_bytes()), "é".repeat(SHOWN));
        assert_eq!(excerpt(b"a\xff"), r"a\xff");
        assert_eq!(excerpt(&[0xb4; 100]), r"\xb4".repeat(SHOWN / 4) + "...");
    }
}
