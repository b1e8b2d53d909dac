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
//! The text is read once, by the lexer of `hifijson`, which works on bytes and takes no memory of its own. The
//! tokens go into a list ([`Token`]); an object's keys are sorted when the object is written, because the binary
//! form wants the number of pairs and their order before the first of them. Strings without escapes and numbers stay
//! where they are in the text until they are written.

use crate::build::Builder;
use crate::compose::wrapped;
use crate::error::DocumentError;
use crate::format::{FALSE, MAX_LENGTH, NULL, NUMERIC, STRING, TRUE};
use crate::item::{Item, key_order};
use crate::numeric;
use hifijson::Read as _;
use hifijson::SliceLexer;
use hifijson::escape::Lex as _;
use hifijson::num::LexWrite as _;
use hifijson::str::LexWrite as _;
use hifijson::token::{Expect, Lex as _};
use state_cache_memory::{Grow, OutOfMemory, with_capacity};

/// Deepest nesting that is read here; what is deeper is declined. Both recursions fit any stack with it.
const MAX_DEPTH: usize = 200;

/// Most elements of one container, and most pairs; a text with more is declined, as the server has limits of its own
/// not far above (`JSONB_MAX_ELEMS`).
const MAX_COUNT: usize = 1_000_000;

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
/// sorting the keys; the memory is eight bytes a token beside the result.
///
/// # Errors
/// [`OutOfMemory`].
pub fn from_text(text: &[u8], encoding: Encoding) -> Result<Option<Vec<u8>>, OutOfMemory> {
    if text.len() > MAX_LENGTH {
        return Ok(None);
    }
    match read(text, encoding).and_then(Tokens::write) {
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
const ESCAPE: usize = 6;

/// The code unit that `\uXXXX` at this place stands for, if that is there.
fn unicode_escape(text: &[u8], at: usize) -> Option<u32> {
    let digits = text.get(at..at + ESCAPE)?.strip_prefix(b"\\u")?;
    digits.iter().try_fold(0, |unit, digit| {
        Some(unit << 4 | char::from(*digit).to_digit(16)?)
    })
}

/// Why a text is not read to its end here.
enum Stop {
    /// The server must decide.
    Declined,
    OutOfMemory(OutOfMemory),
}

impl From<OutOfMemory> for Stop {
    fn from(refused: OutOfMemory) -> Self {
        Self::OutOfMemory(refused)
    }
}

impl From<Expect> for Stop {
    fn from(_: Expect) -> Self {
        Self::Declined
    }
}

impl From<hifijson::str::Error> for Stop {
    fn from(_: hifijson::str::Error) -> Self {
        Self::Declined
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

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Null,
    True,
    False,
    /// A number: where the text spells it.
    Number,
    /// A string without escapes: where it lies in the text.
    Plain,
    /// A string with escapes: where its bytes lie among the decoded ones.
    Decoded,
    /// `at` is the place behind the last token of its elements, `count` their number. Elements follow.
    Array,
    /// The same for pairs, which follow as key and value in turn.
    Object,
}

/// One token of a text, in eight bytes: a large text has tens of thousands, and the memory they take is what costs.
#[derive(Debug, Clone, Copy)]
struct Token {
    at: u32,
    /// The kind, and above its four bits a length or a count of less than 2^28.
    rest: u32,
}

impl Token {
    /// `at` and `count` are at most [`MAX_LENGTH`], as is the length of the text.
    fn new(kind: Kind, at: usize, count: usize) -> Result<Self, Stop> {
        if at > MAX_LENGTH || count > MAX_LENGTH {
            return Err(Stop::Declined);
        }
        // Both have at most 28 bits.
        Ok(Self {
            at: at as u32,
            rest: (count as u32) << 4 | kind as u32,
        })
    }

    fn kind(self) -> Kind {
        match self.rest & 0xF {
            0 => Kind::Null,
            1 => Kind::True,
            2 => Kind::False,
            3 => Kind::Number,
            4 => Kind::Plain,
            5 => Kind::Decoded,
            6 => Kind::Array,
            _ => Kind::Object,
        }
    }

    fn at(self) -> usize {
        self.at as usize
    }

    fn count(self) -> usize {
        (self.rest >> 4) as usize
    }
}

/// All tokens of a text.
struct Tokens<'t> {
    text: &'t [u8],
    list: Vec<Token>,
    /// The bytes of the strings that have escapes.
    decoded: Vec<u8>,
    encoding: Encoding,
}

/// Reads the only value of a text.
fn read(text: &[u8], encoding: Encoding) -> Result<Tokens<'_>, Stop> {
    let mut tokens = Tokens {
        text,
        // Documents of agents have a token in every 10 bytes or so.
        list: with_capacity(text.len() / 8 + 1)?,
        decoded: Vec::new(),
        encoding,
    };
    SliceLexer::new(text).exactly_one(SliceLexer::ws_peek, |next, lexer| {
        tokens.value(next, lexer, 0)
    })?;
    Ok(tokens)
}

impl<'t> Tokens<'t> {
    fn push(&mut self, kind: Kind, at: usize, count: usize) -> Result<(), Stop> {
        Ok(self.list.try_push(Token::new(kind, at, count)?)?)
    }

    /// Adds what lies in the text.
    fn push_piece(&mut self, kind: Kind, piece: &'t [u8]) -> Result<(), Stop> {
        let at = piece.as_ptr().addr() - self.text.as_ptr().addr();
        self.push(kind, at, piece.len())
    }

    /// Reads one value, whose first character is `next`.
    fn value(&mut self, next: u8, lexer: &mut SliceLexer<'t>, depth: usize) -> Result<(), Stop> {
        match next {
            b'"' => {
                lexer.take_next();
                self.string(lexer)
            }
            b'-' | b'0'..=b'9' => match lexer.num_bytes().validated() {
                Ok((spelling, _)) => self.push_piece(Kind::Number, spelling),
                Err(_) => Err(Stop::Declined),
            },
            b'{' => self.container(lexer, depth, Kind::Object, |tokens, next, lexer| {
                if next != b'"' {
                    return Err(Stop::Declined);
                }
                lexer.take_next();
                tokens.string(lexer)?;
                lexer
                    .expect(SliceLexer::ws_peek, b':')
                    .ok_or(Stop::Declined)?;
                let next = lexer.ws_peek().ok_or(Stop::Declined)?;
                tokens.value(next, lexer, depth + 1)
            }),
            b'[' => self.container(lexer, depth, Kind::Array, |tokens, next, lexer| {
                tokens.value(next, lexer, depth + 1)
            }),
            _ => {
                let kind = match lexer.null_or_bool().ok_or(Stop::Declined)? {
                    None => Kind::Null,
                    Some(true) => Kind::True,
                    Some(false) => Kind::False,
                };
                self.push(kind, 0, 0)
            }
        }
    }

    /// Reads a container up to its closing character; `element` reads one element, or one pair.
    fn container(
        &mut self,
        lexer: &mut SliceLexer<'t>,
        depth: usize,
        kind: Kind,
        mut element: impl FnMut(&mut Self, u8, &mut SliceLexer<'t>) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        if depth == MAX_DEPTH {
            return Err(Stop::Declined);
        }
        lexer.take_next();
        let place = self.list.len();
        self.push(kind, 0, 0)?;
        let close = if kind == Kind::Object { b'}' } else { b']' };
        let mut count = 0;
        lexer.seq(close, SliceLexer::ws_peek, |next, lexer| {
            count += 1;
            element(self, next, lexer)
        })?;
        if count > MAX_COUNT {
            return Err(Stop::Declined);
        }
        self.list[place] = Token::new(kind, self.list.len(), count)?;
        Ok(())
    }

    /// Reads a string behind its first quotation mark.
    fn string(&mut self, lexer: &mut SliceLexer<'t>) -> Result<(), Stop> {
        let encoding = self.encoding;
        let start = self.decoded.len();
        // The first piece of the string. The string may end behind the piece, and then nothing is copied.
        let mut first: &'t [u8] = &[];
        let mut pieces = 0;
        lexer.str_fold(
            (&mut self.decoded, &mut first, &mut pieces),
            |piece, (decoded, first, pieces)| {
                match **pieces {
                    0 => **first = piece,
                    _ => decoded.try_extend(piece)?,
                }
                **pieces += 1;
                Ok::<_, Stop>(())
            },
            |lexer, (decoded, first, pieces)| {
                if **pieces == 1 {
                    decoded.try_extend(first)?;
                }
                let kind = lexer.take_next().ok_or(Stop::Declined)?;
                let character = lexer.escape(kind).map_err(|_| Stop::Declined)?;
                if character == '\0' || (encoding == Encoding::Other && !character.is_ascii()) {
                    return Err(Stop::Declined);
                }
                let mut bytes = [0; 4];
                decoded.try_extend(character.encode_utf8(&mut bytes).as_bytes())?;
                Ok(())
            },
        )?;
        match pieces {
            1 => self.push_piece(Kind::Plain, first),
            _ => self.push(Kind::Decoded, start, self.decoded.len() - start),
        }
    }

    /// The bytes that a token of a string or a number stands for; none for others.
    fn bytes(&self, token: Token) -> &[u8] {
        let from = match token.kind() {
            Kind::Plain | Kind::Number => self.text,
            Kind::Decoded => &self.decoded,
            _ => &[],
        };
        from.get(token.at()..token.at() + token.count())
            .unwrap_or_default()
    }

    /// The binary form of the whole.
    fn write(self) -> Result<Vec<u8>, Stop> {
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
                    tokens: &self,
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
