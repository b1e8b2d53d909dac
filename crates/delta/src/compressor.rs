//! zstd with the parameters that suit a document and its base.

use zstd_safe::{CCtx, CParameter, FrameFormat, get_error_name};

use crate::Error;

/// A prefix that is longer than what zstd's own table of parameters has in view gets tables of its own. Up to here,
/// base and document together, the parameters that zstd chooses index all of a prefix.
const SMALL: usize = 256 << 10;

/// The largest hash table, as a power of two of entries of 4 bytes: 16 MiB. Beyond it positions displace each other,
/// which costs bytes, not correctness.
const MAX_HASH_LOG: u32 = 22;

/// Bytes of tables and output that are kept for the next document; what a larger one needed is given back.
const KEPT: usize = 4 << 20;

/// A reusable compression context and its output.
pub(crate) struct Compressor {
    context: CCtx<'static>,
    output: Vec<u8>,
    level: i32,
}

impl Compressor {
    pub(crate) fn new(level: i32) -> Result<Self, Error> {
        Ok(Self {
            context: context(level)?,
            output: Vec::new(),
            level,
        })
    }

    /// Compresses `document`, which can refer to all of `base`; hands the frame to `then`.
    pub(crate) fn compress<T>(
        &mut self,
        document: &[u8],
        base: Option<&[u8]>,
        then: impl FnOnce(&[u8]) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.output.clear();
        self.output
            .try_reserve(zstd_safe::compress_bound(document.len()))
            .map_err(|_| Error::Memory)?;
        self.size_tables(document.len() + base.map_or(0, <[u8]>::len))?;
        let done = compress(&mut self.context, document, base, &mut self.output);
        let result = done.and_then(|()| then(&self.output));
        let trimmed = self.trim();
        result.and_then(|value| trimmed.map(|()| value))
    }

    /// Has the window reach over all of base and document, and the tables index all of the base.
    fn size_tables(&mut self, total: usize) -> Result<(), Error> {
        // 0 is zstd's own choice.
        let (window, table) = if total <= SMALL {
            (0, 0)
        } else {
            let window = total.next_power_of_two().trailing_zeros();
            (window, (window - 1).min(MAX_HASH_LOG))
        };
        for parameter in [
            CParameter::WindowLog(window),
            CParameter::HashLog(table),
            CParameter::ChainLog(table),
        ] {
            self.context.set_parameter(parameter).map_err(refused)?;
        }
        Ok(())
    }

    /// Gives back what an unusually large document needed.
    fn trim(&mut self) -> Result<(), Error> {
        if self.output.capacity() > KEPT {
            self.output = Vec::new();
        }
        if self.context.sizeof() > KEPT {
            self.context = context(self.level)?;
        }
        Ok(())
    }

    /// Bytes that are held for the next document.
    pub(crate) fn memory(&self) -> usize {
        self.context.sizeof() + self.output.capacity()
    }
}

/// A context whose frames hold nothing that the header around them has or does without.
fn context(level: i32) -> Result<CCtx<'static>, Error> {
    let mut context = CCtx::try_create().ok_or(Error::Memory)?;
    for parameter in [
        CParameter::CompressionLevel(level),
        CParameter::Format(FrameFormat::Magicless),
        CParameter::ContentSizeFlag(false),
        CParameter::ChecksumFlag(false),
        CParameter::DictIdFlag(false),
    ] {
        context.set_parameter(parameter).map_err(refused)?;
    }
    Ok(context)
}

/// One frame, with `base` as its prefix.
fn compress<'a>(
    context: &mut CCtx<'static>,
    document: &'a [u8],
    base: Option<&'a [u8]>,
    output: &mut Vec<u8>,
) -> Result<(), Error> {
    // SAFETY: only the lifetime changes. It bounds the prefix that the context refers to; that reference is gone
    // when this function returns, since a frame uses it up and `disable_dictionary` drops it where none was made.
    // zstd reads nothing through what it remembers of an earlier frame.
    let context = unsafe { core::mem::transmute::<&mut CCtx<'static>, &mut CCtx<'a>>(context) };
    let result = base
        .map_or(Ok(0), |base| context.ref_prefix(base))
        .and_then(|_| context.compress2(output, document));
    let dropped = context.disable_dictionary();
    result.and(dropped).map(drop).map_err(refused)
}

/// What zstd calls it where an allocation fails.
pub(crate) const NO_MEMORY: &str = "Allocation error : not enough memory";

/// What zstd says, as an error.
fn refused(code: usize) -> Error {
    // zstd's only failures here are of memory; it names them so.
    match get_error_name(code) {
        NO_MEMORY => Error::Memory,
        message => Error::Compression(message),
    }
}
