//! The frame around the compressed bytes.
//!
//! ```text
//! keyframe: 0x51 | whole size                                                    | zstd | checksum
//! delta:    0x52 | whole size | distance | depth | keyframe bytes | bytes before | zstd | checksum
//! ```
//!
//! Numbers are unsigned LEB128, shortest form. The zstd frame has no magic number, no content size, no checksum of
//! its own: all that is here. The checksum is the low half of the low half of the xxh3-128 of all before it, four
//! bytes little-endian. It says that these are the bytes that were written, and so keeps accidents away from the
//! decompressor; whether the document is the right one, its own hash says.

use crate::error::Fault;
use crate::layout::{Layout, MAX_DEPTH};
use crate::{Error, MAX_DOCUMENT};

/// First byte of a keyframe of the first format.
const KEYFRAME: u8 = 0x51;

/// First byte of a delta of the first format.
pub const DELTA: u8 = 0x52;

/// Bytes of the checksum at the end.
const CHECKSUM: usize = 4;

/// The most bytes of LEB128 that 28 and 64 bits take.
const BYTES_28: usize = 4;
const BYTES_64: usize = 10;

/// The most bytes that a header takes: kind, whole size, distance, depth, two byte counts.
pub const MAX_HEADER: usize = 1 + BYTES_28 + BYTES_64 + 2 + 2 * BYTES_28;

/// What a stored form says of itself. Until [`crate::Decoder::decode`] has seen all of it, that is a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Keyframe or delta.
    pub kind: Kind,
    /// Bytes of the document.
    pub whole_bytes: u32,
    /// Bytes of the header itself.
    len: usize,
}

/// What a stored form needs to be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing else.
    Keyframe,
    /// The document of a lower version.
    Delta {
        /// How far that version lies below its own; at least 1.
        distance: u64,
        /// How that version is stored.
        base: Layout,
    },
}

impl Header {
    /// Reads the header. The first [`MAX_HEADER`] bytes are enough, so a listing need not fetch the rest.
    ///
    /// # Errors
    ///
    /// [`Fault::Truncated`], [`Fault::UnknownFormat`], [`Fault::Size`], [`Fault::Header`]. The checksum is not
    /// looked at.
    pub fn read(packed: &[u8]) -> Result<Self, Fault> {
        let (&first, mut rest) = packed.split_first().ok_or(Fault::Truncated)?;
        if first != KEYFRAME && first != DELTA {
            return Err(Fault::UnknownFormat);
        }
        let whole = number(&mut rest)?;
        if whole > MAX_DOCUMENT as u64 {
            return Err(Fault::Size);
        }
        let kind = if first == KEYFRAME {
            Kind::Keyframe
        } else {
            delta(&mut rest)?
        };
        Ok(Self {
            kind,
            whole_bytes: u32::try_from(whole).map_err(|_| Fault::Size)?,
            len: packed.len() - rest.len(),
        })
    }

    /// Reads the header of a whole stored form, and checks that it is what was written.
    ///
    /// # Errors
    ///
    /// As [`Header::read`], and [`Fault::Checksum`].
    pub fn checked(packed: &[u8]) -> Result<Self, Fault> {
        unwrap(packed).map(|(header, _)| header)
    }

    /// The version that a delta builds upon, if its own is `version`; `None` for a keyframe.
    ///
    /// # Errors
    ///
    /// [`Fault::Header`] if that would be below version 1.
    pub fn base_version(&self, version: i64) -> Result<Option<i64>, Fault> {
        let Kind::Delta { distance, .. } = self.kind else {
            return Ok(None);
        };
        i64::try_from(distance)
            .ok()
            .and_then(|distance| version.checked_sub(distance))
            .filter(|base| *base >= 1)
            .map(Some)
            .ok_or(Fault::Header)
    }

    /// How the version is stored, if its stored form takes `stored` bytes.
    #[must_use]
    pub fn layout(&self, stored: usize) -> Layout {
        match self.kind {
            Kind::Keyframe => Layout::keyframe(stored),
            Kind::Delta { base, .. } => base.extended(stored),
        }
    }
}

/// What follows the whole size in a delta.
fn delta(rest: &mut &[u8]) -> Result<Kind, Fault> {
    let distance = number(rest)?;
    let depth = bounded(number(rest)?, 1, MAX_DEPTH.into())?;
    let keyframe_bytes = bounded(number(rest)?, 1, MAX_DOCUMENT as u64)?;
    let delta_bytes = bounded(number(rest)?, 0, MAX_DOCUMENT as u64)?;
    if distance == 0 {
        return Err(Fault::Header);
    }
    Ok(Kind::Delta {
        distance,
        base: Layout {
            depth: depth - 1,
            keyframe_bytes,
            delta_bytes,
        },
    })
}

fn bounded(number: u64, least: u64, most: u64) -> Result<u32, Fault> {
    if number < least || number > most {
        return Err(Fault::Header);
    }
    u32::try_from(number).map_err(|_| Fault::Header)
}

/// The stored form of a document of `whole_bytes` bytes from its kind and its compressed bytes.
pub(crate) fn wrap(kind: Kind, whole_bytes: usize, compressed: &[u8]) -> Result<Vec<u8>, Error> {
    let mut packed = Vec::new();
    packed
        .try_reserve_exact(MAX_HEADER + compressed.len() + CHECKSUM)
        .map_err(|_| Error::Memory)?;
    let whole_bytes = u32::try_from(whole_bytes).map_err(|_| Error::TooLarge)?;
    match kind {
        Kind::Keyframe => {
            packed.push(KEYFRAME);
            push(&mut packed, whole_bytes.into());
        }
        Kind::Delta { distance, base } => {
            packed.push(DELTA);
            push(&mut packed, whole_bytes.into());
            push(&mut packed, distance);
            push(&mut packed, u64::from(base.depth) + 1);
            push(&mut packed, base.keyframe_bytes.into());
            push(&mut packed, base.delta_bytes.into());
        }
    }
    packed.extend_from_slice(compressed);
    let checksum = checksum(&packed);
    packed.extend_from_slice(&checksum);
    Ok(packed)
}

/// The header and the compressed bytes of a stored form whose checksum matches.
pub(crate) fn unwrap(packed: &[u8]) -> Result<(Header, &[u8]), Fault> {
    let (content, stored) = packed
        .split_last_chunk::<CHECKSUM>()
        .ok_or(Fault::Truncated)?;
    // The header first: an unknown format may keep its checksum elsewhere.
    let header = Header::read(content)?;
    if checksum(content) != *stored {
        return Err(Fault::Checksum);
    }
    let compressed = content.get(header.len..).ok_or(Fault::Truncated)?;
    Ok((header, compressed))
}

fn checksum(content: &[u8]) -> [u8; CHECKSUM] {
    let [a, b, c, d, ..] = state_cache_document::hash(content).to_le_bytes();
    [a, b, c, d]
}

fn push(into: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        into.push((number & 0x7F | 0x80) as u8);
        number >>= 7;
    }
    into.push(number as u8);
}

fn number(rest: &mut &[u8]) -> Result<u64, Fault> {
    let mut number = 0_u64;
    for place in 0..BYTES_64 {
        let (&byte, after) = rest.split_first().ok_or(Fault::Truncated)?;
        *rest = after;
        let bits = u64::from(byte & 0x7F);
        let shifted = bits << (7 * place);
        // Bits beyond the 64th, or a last byte that adds nothing: not how `push` writes.
        if shifted >> (7 * place) != bits || (byte == 0 && place > 0) {
            return Err(Fault::Header);
        }
        number |= shifted;
        if byte < 0x80 {
            return Ok(number);
        }
    }
    Err(Fault::Header)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn delta(distance: u64, depth: u32, keyframe_bytes: u32, delta_bytes: u32) -> Kind {
        Kind::Delta {
            distance,
            base: Layout {
                depth: depth - 1,
                keyframe_bytes,
                delta_bytes,
            },
        }
    }

    #[test]
    fn a_header_reads_back_from_its_first_bytes() {
        let largest = (1 << 28) - 1;
        for (kind, whole) in [
            (Kind::Keyframe, 0),
            (Kind::Keyframe, MAX_DOCUMENT),
            (delta(1, 1, 1, 0), 1),
            (delta(127, 16, 300, 299), 128),
            (delta(u64::MAX, MAX_DEPTH, largest, largest), MAX_DOCUMENT),
        ] {
            let packed = wrap(kind, whole, b"compressed").unwrap();
            let header = Header::read(&packed[..packed.len().min(MAX_HEADER)]).unwrap();
            assert_eq!((header.kind, header.whole_bytes as usize), (kind, whole));
            assert_eq!(unwrap(&packed), Ok((header, &b"compressed"[..])));
        }
    }

    #[test]
    fn the_largest_header_is_the_maximum() {
        let largest = (1 << 28) - 1;
        let kind = delta(u64::MAX, MAX_DEPTH, largest, largest);
        let packed = wrap(kind, MAX_DOCUMENT, b"").unwrap();
        assert_eq!(Header::read(&packed).unwrap().len, MAX_HEADER);
    }

    #[test]
    fn a_listing_learns_version_and_layout() {
        let packed = wrap(delta(3, 2, 500, 40), 900, b"0123456789").unwrap();
        let header = Header::read(&packed).unwrap();
        assert_eq!(header.base_version(10), Ok(Some(7)));
        assert_eq!(header.base_version(4), Ok(Some(1)));
        assert_eq!(header.base_version(3), Err(Fault::Header));
        assert_eq!(header.base_version(i64::MIN), Err(Fault::Header));
        let layout = Layout {
            depth: 2,
            keyframe_bytes: 500,
            delta_bytes: 40 + u32::try_from(packed.len()).unwrap(),
        };
        assert_eq!(header.layout(packed.len()), layout);
        let keyframe = Header::read(&wrap(Kind::Keyframe, 9, b"").unwrap()).unwrap();
        assert_eq!(keyframe.base_version(1), Ok(None));
        assert_eq!(keyframe.layout(77), Layout::keyframe(77));
    }

    #[test]
    fn what_no_writer_writes_is_refused() {
        for (bytes, fault) in [
            (&[][..], Fault::Truncated),
            (&[0x50, 1], Fault::UnknownFormat),
            (&[KEYFRAME], Fault::Truncated),
            (&[KEYFRAME, 0x80], Fault::Truncated),
            (&[KEYFRAME, 0x80, 0], Fault::Header),
            (&[KEYFRAME, 0x80, 0x80, 0x80, 0x80, 1], Fault::Size),
            (
                &[KEYFRAME, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2],
                Fault::Header,
            ),
            (
                &[
                    KEYFRAME, 255, 255, 255, 255, 255, 255, 255, 255, 255, 129, 1,
                ],
                Fault::Header,
            ),
            (&[DELTA, 9, 0, 1, 9, 9], Fault::Header),
            (&[DELTA, 9, 1, 0, 9, 9], Fault::Header),
            (&[DELTA, 9, 1, 0x80, 2, 9, 9], Fault::Header),
            (&[DELTA, 9, 1, 1, 0, 9], Fault::Header),
            (
                &[DELTA, 9, 1, 1, 9, 0x80, 0x80, 0x80, 0x80, 1],
                Fault::Header,
            ),
            (&[DELTA, 9, 1, 1, 9], Fault::Truncated),
        ] {
            assert_eq!(Header::read(bytes), Err(fault), "{bytes:?}");
        }
    }

    #[test]
    fn a_checksum_is_of_all_before_it() {
        let sound = wrap(delta(1, 1, 500, 0), 900, b"0123456789").unwrap();
        for at in 0..sound.len() {
            let mut bad = sound.clone();
            bad[at] ^= 0x40;
            assert!(unwrap(&bad).is_err(), "byte {at}");
        }
    }
}
