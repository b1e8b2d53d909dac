//! The format of a value: see the header of the crate.

use crate::codec::{Codec, Compression};
use crate::key;
use core::fmt;
use strum::{EnumString, FromRepr, IntoStaticStr};
use xxhash_rust::xxh64::Xxh64;

/// What every value begins with.
pub const MAGIC: [u8; 4] = *b"SCL2";
/// The number of the format.
pub const FORMAT: u8 = 1;
/// Bytes of the header.
pub const HEADER: usize = 32;

const CHECKSUM: usize = 24;

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRepr)]
#[repr(u8)]
pub enum Kind {
    /// A document.
    Document = 0,
    /// The state was deleted by this version, or expired.
    Tombstone = 1,
    /// A reader is about to fill.
    Lease = 2,
}

/// Why bytes are no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumString, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Unread {
    /// They do not begin as a value does.
    Foreign,
    /// They are of another format, perhaps a newer one.
    Format,
    /// There are fewer or more than the header says.
    Length,
    /// Their checksum is another: a byte was changed, or they belong to another state.
    Checksum,
    /// They are sound, and hold no document all the same.
    Content,
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Foreign => "not a value of state_cache",
            Self::Format => "a value of another format",
            Self::Length => "a truncated value",
            Self::Checksum => "a value with another checksum",
            Self::Content => "a value without a document",
        })
    }
}

impl core::error::Error for Unread {}

/// A document that is too large for a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLarge {
    /// Bytes of the document.
    pub size: usize,
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a document of {} bytes is too large for a value",
            self.size
        )
    }
}

impl core::error::Error for TooLarge {}

/// What a value holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// The document, JSON text.
    Document(String),
    /// The state was deleted, or has expired.
    Tombstone,
    /// Somebody is about to fill, and nothing else is known.
    Lease,
}

/// A value as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// The version of the state; 0 of a lease.
    pub version: u64,
    /// What it holds.
    pub content: Content,
}

impl Value {
    /// The bytes that hold a document.
    ///
    /// # Errors
    /// [`TooLarge`].
    pub fn document(
        class: &str,
        key: &str,
        version: u64,
        document: &str,
        compression: Compression,
    ) -> Result<Vec<u8>, TooLarge> {
        let bytes = document.as_bytes();
        let size = u32::try_from(bytes.len()).map_err(|_| TooLarge { size: bytes.len() })?;
        let (codec, packed) = compression.pack(bytes);
        let follows = packed.as_deref().unwrap_or(bytes);
        Ok(build(
            class,
            key,
            Kind::Document,
            codec,
            version,
            size,
            follows,
        ))
    }

    /// The bytes that say that this version deleted the state.
    pub fn tombstone(class: &str, key: &str, version: u64) -> Vec<u8> {
        build(class, key, Kind::Tombstone, Codec::Plain, version, 0, &[])
    }

    /// The bytes of a lease. The token must be one that nobody else draws: 16 random bytes.
    pub fn lease(class: &str, key: &str, token: [u8; 16]) -> Vec<u8> {
        build(class, key, Kind::Lease, Codec::Plain, 0, 0, &token)
    }

    /// Checks all of a value and unpacks it.
    ///
    /// # Errors
    /// [`Unread`]: drop it and count it.
    pub fn read(class: &str, key: &str, bytes: &[u8]) -> Result<Self, Unread> {
        let header = Header::read(bytes)?;
        let Some((head, follows)) = bytes.split_first_chunk::<HEADER>() else {
            return Err(Unread::Length);
        };
        if follows.len() != header.follows as usize {
            return Err(Unread::Length);
        }
        if header.checksum != checksum(class, key, &head[..CHECKSUM], follows) {
            return Err(Unread::Checksum);
        }
        let content = match header.kind {
            Kind::Tombstone => Content::Tombstone,
            Kind::Lease => Content::Lease,
            Kind::Document => {
                let document = header
                    .codec
                    .unpack(follows, header.size as usize)
                    .map_err(|_| Unread::Content)?;
                Content::Document(String::from_utf8(document).map_err(|_| Unread::Content)?)
            }
        };
        Ok(Self {
            version: header.version,
            content,
        })
    }
}

/// The first bytes of a value, taken apart. Only [`Value::read`] checks that they are sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// How the document is packed.
    pub codec: Codec,
    /// What the value is.
    pub kind: Kind,
    /// The version of the state.
    pub version: u64,
    /// Bytes of the document before the codec.
    pub size: u32,
    /// Bytes that follow the header.
    pub follows: u32,
    /// Of hash tag, header and what follows.
    pub checksum: u64,
}

impl Header {
    /// Takes the header apart, as the scripts answer it or as a value begins.
    ///
    /// # Errors
    /// [`Unread::Foreign`], [`Unread::Format`], [`Unread::Length`].
    pub fn read(bytes: &[u8]) -> Result<Self, Unread> {
        if !bytes.starts_with(&MAGIC) {
            return Err(Unread::Foreign);
        }
        if bytes.get(4).is_some_and(|format| *format != FORMAT) {
            return Err(Unread::Format);
        }
        let Some(head) = bytes.first_chunk::<HEADER>() else {
            return Err(Unread::Length);
        };
        let [_, _, _, _, _, codec, kind, rest @ ..] = head;
        let [reserved, numbers @ ..] = rest;
        let (Some(codec), Some(kind), 0) =
            (Codec::from_repr(*codec), Kind::from_repr(*kind), *reserved)
        else {
            return Err(Unread::Checksum);
        };
        let mut at = 0;
        let mut number = |width: usize| {
            let part = &numbers[at..at + width];
            at += width;
            part.iter()
                .fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte))
        };
        Ok(Self {
            codec,
            kind,
            version: number(8),
            // Four bytes each.
            size: number(4) as u32,
            follows: number(4) as u32,
            checksum: number(8),
        })
    }
}

fn build(
    class: &str,
    key: &str,
    kind: Kind,
    codec: Codec,
    version: u64,
    size: u32,
    follows: &[u8],
) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + follows.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&[FORMAT, codec as u8, kind as u8, 0]);
    bytes.extend_from_slice(&version.to_be_bytes());
    bytes.extend_from_slice(&size.to_be_bytes());
    // No longer than the document, whose size fits; or a token.
    bytes.extend_from_slice(&(follows.len() as u32).to_be_bytes());
    let checksum = checksum(class, key, &bytes, follows);
    bytes.extend_from_slice(&checksum.to_be_bytes());
    bytes.extend_from_slice(follows);
    bytes
}

fn checksum(class: &str, key: &str, head: &[u8], follows: &[u8]) -> u64 {
    let mut sum = Xxh64::new(0);
    sum.update(key::tag(class, key).as_bytes());
    sum.update(head);
    sum.update(follows);
    sum.digest()
}
