//! The tokens of a JSON text: what [`from_text`](crate::from_text()) writes the binary form from.
//!
//! The text is read once, from front to back. Strings without escapes and numbers stay where they are in the text.

use crate::format::MAX_LENGTH;
use crate::from_text::{ESCAPE, Encoding, Stop, unicode_escape};
use state_cache_memory::Grow;
use std::cell::Cell;
use std::mem::take;

/// Deepest nesting that is read here; what is deeper is declined. Both recursions fit any stack with it.
const MAX_DEPTH: usize = 200;

/// Most elements of one container, and most pairs; a text with more is declined, as the server has limits of its own
/// not far above (`JSONB_MAX_ELEMS`).
const MAX_COUNT: usize = 1_000_000;

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
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
pub(crate) struct Token {
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

    pub(crate) fn kind(self) -> Kind {
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

    pub(crate) fn at(self) -> usize {
        self.at as usize
    }

    pub(crate) fn count(self) -> usize {
        (self.rest >> 4) as usize
    }
}

/// Most tokens of which the memory is kept for the next text: half a megabyte.
const MOST_KEPT: usize = 1 << 16;

thread_local! {
    /// The memory of the last list of tokens. Fresh memory of that size costs a page fault for each 4 kB, which is a
    /// third of the time of a text of 300 kB.
    static KEPT: Cell<Vec<Token>> = const { Cell::new(Vec::new()) };
}

/// All tokens of a text.
pub(crate) struct Tokens<'t> {
    pub(crate) text: &'t [u8],
    pub(crate) list: Vec<Token>,
    /// The bytes of the strings that have escapes.
    decoded: Vec<u8>,
}

impl<'t> Tokens<'t> {
    /// Reads the only value of a text, of at most [`MAX_LENGTH`] bytes.
    pub(crate) fn read(text: &'t [u8], encoding: Encoding) -> Result<Self, Stop> {
        let mut tokens = Tokens {
            text,
            list: KEPT.take(),
            decoded: Vec::new(),
        };
        // Documents of agents have a token in every 10 bytes or so.
        tokens.list.try_room(text.len() / 8 + 1)?;
        let mut reader = Reader {
            tokens,
            at: 0,
            encoding,
        };
        let first = reader.next().ok_or(Stop::Declined)?;
        reader.value(first, 0)?;
        match reader.next() {
            None => Ok(reader.tokens),
            Some(_) => Err(Stop::Declined),
        }
    }

    /// The bytes that a token of a string or a number stands for; none for others.
    pub(crate) fn bytes(&self, token: Token) -> &[u8] {
        let from = match token.kind() {
            Kind::Plain | Kind::Number => self.text,
            Kind::Decoded => &self.decoded,
            _ => &[],
        };
        from.get(token.at()..token.at() + token.count())
            .unwrap_or_default()
    }
}

impl Drop for Tokens<'_> {
    fn drop(&mut self) {
        let mut list = take(&mut self.list);
        if list.capacity() <= MOST_KEPT {
            list.clear();
            KEPT.set(list);
        }
    }
}

/// What reads a text.
struct Reader<'t> {
    tokens: Tokens<'t>,
    /// The place of the next byte.
    at: usize,
    encoding: Encoding,
}

impl Reader<'_> {
    /// The next byte that is no white space, which is not taken.
    #[inline]
    fn next(&mut self) -> Option<u8> {
        loop {
            match *self.tokens.text.get(self.at)? {
                b' ' | b'\n' | b'\t' | b'\r' => self.at += 1,
                byte => return Some(byte),
            }
        }
    }

    /// What is not read yet.
    #[inline]
    fn rest(&self) -> &[u8] {
        self.tokens.text.get(self.at..).unwrap_or_default()
    }

    #[inline]
    fn push(&mut self, kind: Kind, at: usize, count: usize) -> Result<(), Stop> {
        Ok(self.tokens.list.try_push(Token::new(kind, at, count)?)?)
    }

    /// Reads one value, whose first byte is `next`.
    fn value(&mut self, next: u8, depth: usize) -> Result<(), Stop> {
        match next {
            b'"' => self.string(),
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b'-' | b'0'..=b'9' => self.number(),
            b'n' => self.word(b"null", Kind::Null),
            b't' => self.word(b"true", Kind::True),
            b'f' => self.word(b"false", Kind::False),
            _ => Err(Stop::Declined),
        }
    }

    fn word(&mut self, word: &[u8], kind: Kind) -> Result<(), Stop> {
        if !self.rest().starts_with(word) {
            return Err(Stop::Declined);
        }
        self.at += word.len();
        self.push(kind, 0, 0)
    }

    fn number(&mut self) -> Result<(), Stop> {
        let length = number_length(self.rest()).ok_or(Stop::Declined)?;
        self.push(Kind::Number, self.at, length)?;
        self.at += length;
        Ok(())
    }

    /// Takes the opening character of a container and makes its token, which [`Self::close`] completes.
    fn open(&mut self, depth: usize, kind: Kind) -> Result<usize, Stop> {
        if depth == MAX_DEPTH {
            return Err(Stop::Declined);
        }
        self.at += 1;
        let place = self.tokens.list.len();
        self.push(kind, 0, 0)?;
        Ok(place)
    }

    /// Takes the closing character of the container whose token is at this place.
    fn close(&mut self, place: usize, kind: Kind, count: usize) -> Result<(), Stop> {
        self.at += 1;
        if count > MAX_COUNT {
            return Err(Stop::Declined);
        }
        self.tokens.list[place] = Token::new(kind, self.tokens.list.len(), count)?;
        Ok(())
    }

    /// The first byte of the first element, which is not taken; `None` at the closing character.
    #[inline]
    fn first(&mut self, close: u8) -> Result<Option<u8>, Stop> {
        let next = self.next().ok_or(Stop::Declined)?;
        Ok(Some(next).filter(|byte| *byte != close))
    }

    /// Takes the comma before the next element and gives the first byte of that; `None` at the closing character.
    #[inline]
    fn another(&mut self, close: u8) -> Result<Option<u8>, Stop> {
        match self.next() {
            Some(b',') => {
                self.at += 1;
                self.next().map(Some).ok_or(Stop::Declined)
            }
            Some(byte) if byte == close => Ok(None),
            _ => Err(Stop::Declined),
        }
    }

    fn array(&mut self, depth: usize) -> Result<(), Stop> {
        let place = self.open(depth, Kind::Array)?;
        let mut count = 0;
        let mut next = self.first(b']')?;
        while let Some(first) = next {
            self.value(first, depth + 1)?;
            count += 1;
            next = self.another(b']')?;
        }
        self.close(place, Kind::Array, count)
    }

    fn object(&mut self, depth: usize) -> Result<(), Stop> {
        let place = self.open(depth, Kind::Object)?;
        let mut count = 0;
        let mut next = self.first(b'}')?;
        while let Some(first) = next {
            if first != b'"' {
                return Err(Stop::Declined);
            }
            self.string()?;
            if self.next() != Some(b':') {
                return Err(Stop::Declined);
            }
            self.at += 1;
            let first = self.next().ok_or(Stop::Declined)?;
            self.value(first, depth + 1)?;
            count += 1;
            next = self.another(b'}')?;
        }
        self.close(place, Kind::Object, count)
    }

    /// Reads a string from its first quotation mark on.
    #[inline]
    fn string(&mut self) -> Result<(), Stop> {
        self.at += 1;
        let start = self.at;
        let length = plain_length(self.rest());
        self.at += length;
        match self.tokens.text.get(self.at) {
            Some(b'"') => {
                self.at += 1;
                self.push(Kind::Plain, start, length)
            }
            Some(b'\\') => self.string_with_escapes(start),
            _ => Err(Stop::Declined),
        }
    }

    /// Reads on, at the first escape of a string whose first character is at `start`.
    fn string_with_escapes(&mut self, mut start: usize) -> Result<(), Stop> {
        let text = self.tokens.text;
        let decoded = self.tokens.decoded.len();
        loop {
            self.tokens.decoded.try_extend(&text[start..self.at])?;
            match text.get(self.at) {
                Some(b'"') => break,
                Some(b'\\') => self.escape()?,
                _ => return Err(Stop::Declined),
            }
            start = self.at;
            self.at += plain_length(self.rest());
        }
        self.at += 1;
        self.push(Kind::Decoded, decoded, self.tokens.decoded.len() - decoded)
    }

    /// Reads an escape and adds what it stands for.
    fn escape(&mut self) -> Result<(), Stop> {
        let text = self.tokens.text;
        let byte = match text.get(self.at + 1) {
            Some(byte @ (b'"' | b'\\' | b'/')) => *byte,
            Some(b'b') => 0x08,
            Some(b'f') => 0x0C,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'u') => return self.character(),
            _ => return Err(Stop::Declined),
        };
        self.at += 2;
        Ok(self.tokens.decoded.try_push(byte)?)
    }

    /// Reads an escape of a code unit, or of the two code units that make one character.
    fn character(&mut self) -> Result<(), Stop> {
        let text = self.tokens.text;
        let unit = unicode_escape(text, self.at).ok_or(Stop::Declined)?;
        self.at += ESCAPE;
        let code = match unit {
            0xD800..=0xDBFF => match unicode_escape(text, self.at) {
                Some(low @ 0xDC00..=0xDFFF) => {
                    self.at += ESCAPE;
                    0x1_0000 + ((unit - 0xD800) << 10) + (low - 0xDC00)
                }
                _ => return Err(Stop::Declined),
            },
            unit => unit,
        };
        // A lone low surrogate is no character.
        let character = char::from_u32(code).ok_or(Stop::Declined)?;
        if character == '\0' || (self.encoding == Encoding::Other && !character.is_ascii()) {
            return Err(Stop::Declined);
        }
        let mut bytes = [0; 4];
        let bytes = character.encode_utf8(&mut bytes).as_bytes();
        Ok(self.tokens.decoded.try_extend(bytes)?)
    }
}

/// Bytes of the number at the front, by the grammar of JSON; `None` where there is none.
fn number_length(text: &[u8]) -> Option<usize> {
    let digits = |from: usize| -> usize {
        let digits = text.get(from..).unwrap_or_default();
        digits
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count()
    };
    let whole = usize::from(text.first() == Some(&b'-'));
    let mut at = match text.get(whole)? {
        b'0' => whole + 1,
        b'1'..=b'9' => whole + 1 + digits(whole + 1),
        _ => return None,
    };
    if text.get(at) == Some(&b'.') {
        let decimals = digits(at + 1);
        if decimals == 0 {
            return None;
        }
        at += 1 + decimals;
    }
    if matches!(text.get(at), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(text.get(at + 1), Some(b'+' | b'-')));
        let exponent = digits(at + 1 + sign);
        if exponent == 0 {
            return None;
        }
        at += 1 + sign + exponent;
    }
    Some(at)
}

/// Bytes before the first one that ends a string or is special in it: a quotation mark, a backslash, a control
/// character.
#[inline]
fn plain_length(text: &[u8]) -> usize {
    let (words, rest) = text.as_chunks();
    for (index, word) in words.iter().enumerate() {
        let special = special_bytes(u64::from_le_bytes(*word));
        if special != 0 {
            return index * size_of::<u64>() + special.trailing_zeros() as usize / 8;
        }
    }
    let is_special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
    let plain = rest.iter().position(is_special).unwrap_or(rest.len());
    text.len() - rest.len() + plain
}

/// Of eight bytes, the topmost bit of the first one that is special in a string; bits above it mean nothing, and
/// none is set where no byte is special.
///
/// `word - n * ONES` borrows from the byte above where a byte is below `n`, which sets the topmost bit of that byte;
/// so the lowest bit found is true, whatever the borrow does above. A byte with its topmost bit set is none of them.
#[inline]
fn special_bytes(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOPS: u64 = 0x8080_8080_8080_8080;
    let below = |word: u64, limit: u64| word.wrapping_sub(limit * ONES) & !word;
    let equal = |byte: u8| below(word ^ (u64::from(byte) * ONES), 1);
    (below(word, 0x20) | equal(b'"') | equal(b'\\')) & TOPS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_special_byte_is_found_among_all_others_and_at_each_place() {
        for byte in 0..=u8::MAX {
            let is_special = byte < 0x20 || byte == b'"' || byte == b'\\';
            for filler in [0x20, 0x21, 0x23, 0x5B, 0x5D, 0x7F, 0x80, 0x9F, 0xFF] {
                for length in 0..20 {
                    for at in 0..length {
                        let mut text = vec![filler; length];
                        text[at] = byte;

                        let expected = if is_special { at } else { length };
                        assert_eq!(plain_length(&text), expected, "{text:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_first_of_two_special_bytes_is_found() {
        let special = [0, 1, 0x1F, b'"', b'\\'];
        for first in special {
            for second in special {
                for after in 1..12 {
                    let mut text = [b'!'; 24];
                    (text[5], text[5 + after]) = (first, second);

                    assert_eq!(plain_length(&text), 5, "{text:?}");
                }
            }
        }
    }

    #[test]
    fn a_number_ends_where_its_grammar_ends() {
        for (text, expected) in [
            ("0", Some(1)),
            ("01", Some(1)),
            ("-0,", Some(2)),
            ("12.50e+7]", Some(8)),
            ("1E5 ", Some(3)),
            ("9.", None),
            ("9.e1", None),
            ("1e", None),
            ("1e+", None),
            ("-", None),
            ("-a", None),
            ("+1", None),
            (".5", None),
            ("", None),
        ] {
            assert_eq!(number_length(text.as_bytes()), expected, "{text}");
        }
    }
}
