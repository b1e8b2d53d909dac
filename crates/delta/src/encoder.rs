//! From a document to what is stored.

use crate::compressor::Compressor;
use crate::decoder::TRAINED;
use crate::header::{self, Kind};
use crate::layout::Layout;
use crate::{Error, MAX_DOCUMENT, policy};

/// A kept version below the one to encode: the one right before it, or the parent of a branch.
#[derive(Debug, Clone, Copy)]
pub struct Base<'a> {
    /// Its version.
    pub version: i64,
    /// Its document.
    pub document: &'a [u8],
    /// How it is stored.
    pub layout: Layout,
}

/// What to store for a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The form.
    pub form: Form,
    /// How the version is then stored.
    pub layout: Layout,
}

/// A stored form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    /// The document itself; the caller has it.
    Whole,
    /// A compressed keyframe or a delta, as [`crate::Decoder`] takes it.
    Packed(Vec<u8>),
}

/// Encodes documents, one after the other, with the same tables.
pub struct Encoder(Compressor);

impl Encoder {
    /// An encoder at a compression level of zstd.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`].
    pub fn new(level: i32) -> Result<Self, Error> {
        Compressor::new(level).map(Self)
    }

    /// Encodes `document` as `version`: as a delta upon `base` where that pays and the chain stays within
    /// `max_chain` deltas and within the bytes of its keyframe; as a keyframe otherwise.
    ///
    /// # Errors
    ///
    /// [`Error::Order`] if the base is not of a lower version, [`Error::TooLarge`], [`Error::Memory`],
    /// [`Error::Compression`].
    pub fn encode(
        &mut self,
        document: &[u8],
        version: i64,
        base: Option<Base<'_>>,
        max_chain: u32,
    ) -> Result<Encoded, Error> {
        let delta = match base {
            Some(base) => self.delta(document, version, base, max_chain)?,
            None => None,
        };
        let Some((packed, layout)) = delta else {
            return self.encode_keyframe(document);
        };
        if !policy::is_clear(packed.len(), document.len()) {
            let keyframe = self.encode_keyframe(document)?;
            if !policy::delta_pays(packed.len(), keyframe.layout.keyframe_bytes as usize) {
                return Ok(keyframe);
            }
        }
        Ok(Encoded {
            form: Form::Packed(packed),
            layout,
        })
    }

    /// Encodes `document` so that it depends on no other version: compressed where that pays.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`], [`Error::Memory`], [`Error::Compression`].
    pub fn encode_keyframe(&mut self, document: &[u8]) -> Result<Encoded, Error> {
        check_size(document)?;
        if policy::may_pack(document.len()) {
            let packed = self.pack(document, Kind::Keyframe, None)?;
            if policy::packing_pays(packed.len(), document.len()) {
                return Ok(Encoded {
                    layout: Layout::keyframe(packed.len()),
                    form: Form::Packed(packed),
                });
            }
        }
        Ok(Encoded {
            form: Form::Whole,
            layout: Layout::keyframe(document.len()),
        })
    }

    /// Bytes that the encoder holds between calls: some hundred kilobytes, at most a few megabytes.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.0.memory()
    }

    /// The delta and its layout, if the chain may get it.
    fn delta(
        &mut self,
        document: &[u8],
        version: i64,
        base: Base<'_>,
        max_chain: u32,
    ) -> Result<Option<(Vec<u8>, Layout)>, Error> {
        check_size(document)?;
        check_size(base.document)?;
        let distance = version
            .checked_sub(base.version)
            .and_then(|distance| u64::try_from(distance).ok())
            .filter(|distance| *distance > 0)
            .ok_or(Error::Order)?;
        if !policy::may_extend(base.layout, max_chain) || base.document.starts_with(&TRAINED) {
            return Ok(None);
        }
        let kind = Kind::Delta {
            distance,
            base: base.layout,
        };
        let packed = self.pack(document, kind, Some(base.document))?;
        let layout = base.layout.extended(packed.len());
        Ok(policy::fits(base.layout, packed.len()).then_some((packed, layout)))
    }

    fn pack(&mut self, document: &[u8], kind: Kind, base: Option<&[u8]>) -> Result<Vec<u8>, Error> {
        self.0.compress(document, base, |frame| {
            header::wrap(kind, document.len(), frame)
        })
    }
}

fn check_size(document: &[u8]) -> Result<(), Error> {
    if document.len() > MAX_DOCUMENT {
        return Err(Error::TooLarge);
    }
    Ok(())
}
