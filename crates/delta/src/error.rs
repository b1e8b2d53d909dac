//! Why a document could not be encoded, and why a stored form could not be decoded.

use core::fmt;

/// Why a document could not be encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// No memory for a context, its tables or the output.
    Memory,
    /// The document, or that of the base, has more than [`crate::MAX_DOCUMENT`] bytes.
    TooLarge,
    /// The base is not of a lower version.
    Order,
    /// zstd refused, with its own message.
    Compression(&'static str),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "out of memory while compressing a document",
            Self::TooLarge => "the document exceeds the maximum size of jsonb",
            Self::Order => "the base of a delta must be of a lower version",
            Self::Compression(message) => message,
        })
    }
}

impl core::error::Error for Error {}

/// What is wrong with a stored form. All but [`Fault::Memory`] mean that it, or its base, is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It ends within the header or the checksum.
    Truncated,
    /// The first byte names no format of this release.
    UnknownFormat,
    /// A field of the header has a value that no writer writes.
    Header,
    /// It is not what was written.
    Checksum,
    /// The document would be larger than is allowed, or than so few bytes can hold.
    Size,
    /// A delta came without its base.
    MissingBase,
    /// The compressed part cannot be decoded, or not to the stated size.
    Corrupt,
    /// No memory for the document: the stored form may well be sound.
    Memory,
}

impl Fault {
    /// What is wrong, for people.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            Self::Truncated => "the stored form is cut off",
            Self::UnknownFormat => "the stored form is of an unknown format",
            Self::Header => "the header of the stored form is damaged",
            Self::Checksum => "the checksum of the stored form does not match",
            Self::Size => "the stored form states an impossible size",
            Self::MissingBase => "the version that the delta builds upon is missing",
            Self::Corrupt => "the stored form cannot be decompressed",
            Self::Memory => "out of memory while decompressing a document",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl core::error::Error for Fault {}
