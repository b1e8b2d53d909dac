//! From what is stored to the document.

use zstd_safe::{DCtx, DParameter, FrameFormat, get_error_name};

use crate::Fault;
use crate::compressor::NO_MEMORY;
use crate::header::{self, Kind};

/// The most bytes that a block of zstd decodes to.
const BLOCK: usize = 128 << 10;

/// The fewest bytes of a block of zstd: a header of 3 bytes, and one that is repeated.
const LEAST_BLOCK: usize = 4;

/// First bytes of a trained dictionary. zstd takes a base that begins so for one, and no jsonb does.
pub(crate) const TRAINED: [u8; 4] = [0x37, 0xA4, 0x30, 0xEC];

/// Decodes stored forms, one after the other, with the same tables.
pub struct Decoder(DCtx<'static>);

impl Decoder {
    /// A decoder; it holds some 100 KiB.
    ///
    /// # Errors
    ///
    /// [`Fault::Memory`].
    pub fn new() -> Result<Self, Fault> {
        let mut context = DCtx::try_create().ok_or(Fault::Memory)?;
        context
            .set_parameter(DParameter::Format(FrameFormat::Magicless))
            .map_err(|_| Fault::Corrupt)?;
        Ok(Self(context))
    }

    /// The document that `packed` stands for; a delta needs the document of its base version, a keyframe looks at
    /// none. Takes memory for the document only, and only after all claims have been checked.
    ///
    /// A delta upon a wrong base, or upon a wrong version of it, may well decode: compare the result with the hash
    /// of the document.
    ///
    /// # Errors
    ///
    /// Every [`Fault`].
    pub fn decode(&mut self, packed: &[u8], base: Option<&[u8]>) -> Result<Vec<u8>, Fault> {
        let (header, compressed) = header::unwrap(packed)?;
        let base = match header.kind {
            Kind::Keyframe => &[],
            Kind::Delta { .. } => base.ok_or(Fault::MissingBase)?,
        };
        let whole = usize::try_from(header.whole_bytes).map_err(|_| Fault::Size)?;
        if whole > (compressed.len() / LEAST_BLOCK).saturating_mul(BLOCK) {
            return Err(Fault::Size);
        }
        let mut document = Vec::new();
        document
            .try_reserve_exact(whole)
            .map_err(|_| Fault::Memory)?;
        // The call writes at most what the buffer holds, whatever window the frame asks for.
        let written = self
            .0
            .decompress_using_dict(&mut document, compressed, base)
            .map_err(fault)?;
        if written != whole {
            return Err(Fault::Corrupt);
        }
        Ok(document)
    }

    /// Bytes that the decoder holds, during a call and between calls.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.0.sizeof()
    }
}

/// What zstd says, as a fault: want of memory is no damage.
fn fault(code: usize) -> Fault {
    match get_error_name(code) {
        NO_MEMORY => Fault::Memory,
        _ => Fault::Corrupt,
    }
}
