//! How a document is packed.

use core::fmt;
use flate2::Compression as Level;
use flate2::read::{GzDecoder, GzEncoder};
use std::cell::RefCell;
use std::io::Read;
use strum::{EnumString, FromRepr, IntoStaticStr};
use zstd::bulk::{Compressor, Decompressor};

/// Level of zstd: the slowest of the fast ones, which leave literals as they are. A reader unpacks a recorded run of
/// 2.8 KB in 1.9 µs instead of 3.7, and it takes 1.3 times the bytes of level 1 (`zstd -b1` and `zstd --fast=1 -b` of
/// a file that holds the run).
const LEVEL: i32 = -1;

/// How a document is packed. The number stands in the value, the name in `state_class.l2_codec`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumString, FromRepr, IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
#[repr(u8)]
pub enum Codec {
    /// As it is.
    Plain = 0,
    /// Zstandard.
    Zstd = 1,
    /// gzip.
    Gzip = 2,
}

/// Which documents of a class are packed, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compression {
    /// How.
    pub codec: Codec,
    /// Documents of more bytes than this are.
    pub above: usize,
}

impl Default for Compression {
    fn default() -> Self {
        Self {
            codec: Codec::Zstd,
            above: 1024,
        }
    }
}

/// What was packed does not unpack to as many bytes as the header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Undecoded;

impl fmt::Display for Undecoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the document does not unpack")
    }
}

impl core::error::Error for Undecoded {}

impl Compression {
    /// The document packed, and how: plain where packing gains nothing.
    pub(crate) fn pack(self, document: &[u8]) -> (Codec, Option<Vec<u8>>) {
        if document.len() <= self.above {
            return (Codec::Plain, None);
        }
        let packed = match self.codec {
            Codec::Plain => None,
            Codec::Zstd => packed_by_zstd(document),
            Codec::Gzip => {
                let mut packed = Vec::new();
                GzEncoder::new(document, Level::fast())
                    .read_to_end(&mut packed)
                    .ok()
                    .map(|_| packed)
            }
        };
        match packed {
            Some(packed) if packed.len() < document.len() => (self.codec, Some(packed)),
            _ => (Codec::Plain, None),
        }
    }
}

thread_local! {
    /// What packs: making one anew takes longer than to pack a document of a kilobyte.
    static PACKER: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    /// What unpacks, for the same reason.
    static UNPACKER: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// The document packed; `None` where there is no memory for it.
fn packed_by_zstd(document: &[u8]) -> Option<Vec<u8>> {
    PACKER.with_borrow_mut(|packer| {
        let packer = match packer {
            Some(packer) => packer,
            None => packer.insert(Compressor::new(LEVEL).ok()?),
        };
        packer.compress(document).ok()
    })
}

/// Unpacks into the room that the document has been given; an error if there is more.
fn unpack_by_zstd(packed: &[u8], document: &mut Vec<u8>) -> Result<(), Undecoded> {
    UNPACKER.with_borrow_mut(|unpacker| {
        let unpacker = match unpacker {
            Some(unpacker) => unpacker,
            None => unpacker.insert(Decompressor::new().map_err(|_| Undecoded)?),
        };
        unpacker
            .decompress_to_buffer(packed, document)
            .map(|_| ())
            .map_err(|_| Undecoded)
    })
}

impl Codec {
    /// The document unpacked. `size` is what the header says; no more memory is taken.
    pub(crate) fn unpack(self, packed: &[u8], size: usize) -> Result<Vec<u8>, Undecoded> {
        let mut document = state_cache_memory::with_capacity(size).map_err(|_| Undecoded)?;
        match self {
            Self::Plain => document.extend_from_slice(packed),
            Self::Zstd => unpack_by_zstd(packed, &mut document)?,
            Self::Gzip => {
                GzDecoder::new(packed)
                    // One byte more than allowed, to notice one too many.
                    .take(size as u64 + 1)
                    .read_to_end(&mut document)
                    .map_err(|_| Undecoded)?;
            }
        }
        if document.len() == size {
            Ok(document)
        } else {
            Err(Undecoded)
        }
    }
}
