//! How a document is packed.

use core::fmt;
use flate2::Compression as Level;
use flate2::read::{GzDecoder, GzEncoder};
use std::io::Read;
use strum::{EnumString, FromRepr, IntoStaticStr};

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
            Codec::Zstd => zstd::bulk::compress(document, 1).ok(),
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

impl Codec {
    /// The document unpacked. `size` is what the header says; no more memory is taken.
    pub(crate) fn unpack(self, packed: &[u8], size: usize) -> Result<Vec<u8>, Undecoded> {
        let mut document = state_cache_memory::with_capacity(size).map_err(|_| Undecoded)?;
        // One byte more than allowed, to notice one too many.
        let limit = size as u64 + 1;
        match self {
            Self::Plain => document.extend_from_slice(packed),
            Self::Zstd => {
                let reader = zstd::stream::read::Decoder::new(packed).map_err(|_| Undecoded)?;
                reader
                    .take(limit)
                    .read_to_end(&mut document)
                    .map_err(|_| Undecoded)?;
            }
            Self::Gzip => {
                GzDecoder::new(packed)
                    .take(limit)
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
