//! JSON text into the binary form.
//!
//! # Contract
//!
//! [`from_text`] gives, byte for byte, what the server's `jsonb_in` gives for the same text, or it declines. A
//! declined text is for `jsonb_in` itself, which accepts the text or raises its own error, with its own SQLSTATE
//! and position. So nothing here repeats the server's messages, and what is rare stays with the server: numbers
//! of thousands of digits, characters that an encoding other than UTF-8 must convert, great depth.
//!
//! [`replace_invalid`] is for texts that `jsonb_in` refuses for one reason only: the escapes of NUL and of lone
//! surrogates. The function writes U+FFFD in their place. All three have six bytes as escapes, so that positions
//! in the server's errors stay true.
//!
//! # How
//!
//! The text is read once, into a list of tokens (`tokens.rs`). An object's keys are sorted when the object is
//! written, because the binary form wants the number of pairs and their order before the first of them.

use crate::build::Builder;
use crate::compose::wrapped;
use crate::error::DocumentError;
use crate::format::{FALSE, MAX_LENGTH, NULL, NUMERIC, STRING, TRUE};
use crate::item::{Item, key_order};
use crate::numeric;
use crate::tokens::{Kind, Tokens};
use state_cache_memory::{Grow, OutOfMemory, with_capacity};

/// What may stand in an escape and be taken over as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Every character: the server's encoding is UTF-8.
    Utf8,
    /// Characters of ASCII: the server converts all others.
    Other,
}

/// The document that `text` spells, as `jsonb_in` builds it; `None` where `jsonb_in` must decide.
///
/// `text` is in the server's encoding, of which every byte below 128 is a character of ASCII. The time is that of
/// sorting the keys; the memory is eight bytes a token beside the result. Half a megabyte of it is kept for the
/// next text.
///
/// # Errors
/// [`OutOfMemory`].
pub fn from_text(text: &[u8], encoding: Encoding) -> Result<Option<Vec<u8>>, OutOfMemory> {
    if text.len() > MAX_LENGTH {
        return Ok(None);
    }
    match Tokens::read(text, encoding).and_then(|tokens| tokens.write()) {
        Ok(document) => Ok(Some(document)),
        Err(Stop::Declined) => Ok(None),
        Err(Stop::OutOfMemory(refused)) => Err(refused),
    }
}

/// The text with U+FFFD in place of escaped NULs and lone surrogates; `None` where there are none.
///
/// # Errors
/// [`OutOfMemory`].
pub fn replace_invalid(text: &[u8]) -> Result<Option<Vec<u8>>, OutOfMemory> {
    let mut replaced: Option<Vec<u8>> = None;
    let mut at = 0;
    while let Some(found) = memchr::memchr(b'\\', &text[at..]) {
        let escape = at + found;
        at = match unicode_escape(text, escape) {
            None => escape + 2,
            Some(0xD800..=0xDBFF)
                if matches!(unicode_escape(text, escape + ESCAPE), Some(0xDC00..=0xDFFF)) =>
            {
                escape + 2 * ESCAPE
            }
            Some(0 | 0xD800..=0xDFFF) => {
                let out = match &mut replaced {
                    Some(out) => out,
                    None => replaced.insert(state_cache_memory::copy(text)?),
                };
                out[escape + 2..escape + ESCAPE].copy_from_slice(b"fffd");
                escape + ESCAPE
            }
            Some(_) => escape + ESCAPE,
        };
        if at >= text.len() {
            break;
        }
    }
    Ok(replaced)
}

/// Bytes of `\uXXXX`.
pub(crate) const ESCAPE: usize = 6;

/// The code unit that `\uXXXX` at this place stands for, if that is there.
pub(crate) fn unicode_escape(text: &[u8], at: usize) -> Option<u32> {
    let digits = text.get(at..at + ESCAPE)?.strip_prefix(b"\\u")?;
    digits.iter().try_fold(0, |unit, digit| {
        Some(unit << 4 | char::from(*digit).to_digit(16)?)
    })
}

/// Why a text is not read to its end here.
pub(crate) enum Stop {
    /// The server must decide.
    Declined,
    OutOfMemory(OutOfMemory),
}

impl From<OutOfMemory> for Stop {
    fn from(refused: OutOfMemory) -> Self {
        Self::OutOfMemory(refused)
    }
}

impl From<DocumentError> for Stop {
    fn from(error: DocumentError) -> Self {
        match error {
            DocumentError::OutOfMemory(refused) => Self::OutOfMemory(refused),
            // Too large for the binary form; the server says so in its own words.
            _ => Self::Declined,
        }
    }
}

impl Tokens<'_> {
    /// The binary form of the whole.
    fn write(&self) -> Result<Vec<u8>, Stop> {
        let root = self.list[0];
        Ok(match root.kind() {
            Kind::Null => wrapped(NULL, &[])?,
            Kind::True => wrapped(TRUE, &[])?,
            Kind::False => wrapped(FALSE, &[])?,
            Kind::Plain | Kind::Decoded => wrapped(STRING, self.bytes(root))?,
            Kind::Number => {
                let mut number = Vec::new();
                numeric::write(self.bytes(root), &mut number)?.ok_or(Stop::Declined)?;
                wrapped(NUMERIC, &number)?
            }
            Kind::Array | Kind::Object => {
                let mut writer = Writer {
                    // Punctuation, which goes, makes room for most of the entries.
                    out: with_capacity(self.text.len() + self.text.len() / 8)?,
                    pairs: Vec::new(),
                    tokens: self,
                };
                let root = writer.container(0)?;
                root.finish(&writer.out)?;
                writer.out
            }
        })
    }
}

/// One pair of an object that is being written.
#[derive(Clone, Copy)]
struct Pair<'t> {
    key: &'t [u8],
    /// Place of the value's token, which is the higher the later the pair comes.
    value: usize,
}

/// What writes the tokens of a text.
struct Writer<'t> {
    tokens: &'t Tokens<'t>,
    out: Vec<u8>,
    /// The pairs of the objects that are being written, an inner one's behind those of the outer ones.
    pairs: Vec<Pair<'t>>,
}

impl Writer<'_> {
    /// Writes the container whose token is at this place; the caller finishes it.
    fn container(&mut self, place: usize) -> Result<Builder, Stop> {
        let token = self.tokens.list[place];
        if token.kind() == Kind::Object {
            return self.object(place + 1, token.count());
        }
        let mut array = Builder::array(&mut self.out, token.count())?;
        let mut element = place + 1;
        for _ in 0..token.count() {
            element = self.element(&mut array, element)?;
        }
        Ok(array)
    }

    /// Writes an object of so many pairs, of which the first is at this place.
    fn object(&mut self, first: usize, count: usize) -> Result<Builder, Stop> {
        let base = self.pairs.len();
        self.pairs.try_room(count)?;
        let mut place = first;
        for _ in 0..count {
            let key = self.tokens.bytes(self.tokens.list[place]);
            let value = place + 1;
            self.pairs.push(Pair { key, value });
            place = self.behind(value);
        }
        // Of equal keys the last comes first, and stays.
        self.pairs[base..].sort_unstable_by(|left, right| {
            key_order(left.key, right.key).then(right.value.cmp(&left.value))
        });
        let mut kept = base;
        for index in base..self.pairs.len() {
            if index == base || self.pairs[index].key != self.pairs[kept - 1].key {
                self.pairs[kept] = self.pairs[index];
                kept += 1;
            }
        }
        self.pairs.truncate(kept);
        let mut object = Builder::object(&mut self.out, kept - base)?;
        for pair in &self.pairs[base..] {
            let key = Item {
                kind: STRING,
                bytes: pair.key,
            };
            object.put(&mut self.out, &key)?;
        }
        for index in base..kept {
            self.element(&mut object, self.pairs[index].value)?;
        }
        self.pairs.truncate(base);
        Ok(object)
    }

    /// Writes one element of a container; the place behind it.
    fn element(&mut self, container: &mut Builder, place: usize) -> Result<usize, Stop> {
        let token = self.tokens.list[place];
        let kind = match token.kind() {
            Kind::Array | Kind::Object => {
                let child = self.container(place)?;
                container.adopt(&mut self.out, child)?;
                return Ok(token.at());
            }
            Kind::Number => {
                let start = self.out.len();
                container.align(&mut self.out)?;
                let spelling = self.tokens.bytes(token);
                numeric::write(spelling, &mut self.out)?.ok_or(Stop::Declined)?;
                container.take(&mut self.out, NUMERIC, start)?;
                return Ok(place + 1);
            }
            Kind::Plain | Kind::Decoded => STRING,
            Kind::Null => NULL,
            Kind::True => TRUE,
            Kind::False => FALSE,
        };
        let bytes = self.tokens.bytes(token);
        container.put(&mut self.out, &Item { kind, bytes })?;
        Ok(place + 1)
    }

    /// The place behind the value whose first token is at this place.
    fn behind(&self, place: usize) -> usize {
        let token = self.tokens.list[place];
        match token.kind() {
            Kind::Array | Kind::Object => token.at(),
            _ => place + 1,
        }
    }
}
