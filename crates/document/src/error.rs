//! Why an operation on a document, or a pattern, was refused.

use core::fmt;

use state_cache_memory::OutOfMemory;

/// Why an operation on a document was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DocumentError {
    /// The bytes are no well-formed jsonb.
    Damaged,
    /// The state's root is an array or a scalar, and the operation needs an object.
    NotAnObject,
    /// The state's root is an object or a scalar, and the operation needs an array.
    NotAnArray,
    /// The updates are an array or a scalar.
    UpdatesNotObject,
    /// The section is not there.
    SectionMissing,
    /// The section is there and holds an array or a scalar.
    SectionNotObject,
    /// The path leads nowhere.
    PathMissing,
    /// What lies at the path is not an array.
    PathNotArray,
    /// The result does not fit jsonb's 28-bit lengths.
    TooLarge,
    /// There is no memory for the result, or for the way there.
    OutOfMemory(OutOfMemory),
}

impl From<OutOfMemory> for DocumentError {
    fn from(refused: OutOfMemory) -> Self {
        Self::OutOfMemory(refused)
    }
}

impl fmt::Display for DocumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Damaged => "the document is damaged",
            Self::NotAnObject => "the state is not an object",
            Self::NotAnArray => "the state is not an array",
            Self::UpdatesNotObject => "the updates are not an object",
            Self::SectionMissing => "the section does not exist",
            Self::SectionNotObject => "the section is not an object",
            Self::PathMissing => "the path leads nowhere",
            Self::PathNotArray => "the value at the path is not an array",
            Self::TooLarge => "the document exceeds the maximum size of jsonb",
            Self::OutOfMemory(_) => "out of memory",
        })
    }
}

impl core::error::Error for DocumentError {}

/// Why a text gives no key pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatternError {
    /// It ends in a backslash that escapes nothing.
    Unfinished,
    /// There is no memory for it.
    OutOfMemory(OutOfMemory),
}

impl From<OutOfMemory> for PatternError {
    fn from(refused: OutOfMemory) -> Self {
        Self::OutOfMemory(refused)
    }
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unfinished => "the pattern ends in a backslash that escapes nothing",
            Self::OutOfMemory(_) => "out of memory",
        })
    }
}

impl core::error::Error for PatternError {}
