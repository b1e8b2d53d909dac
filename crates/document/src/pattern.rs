//! Key patterns.

use crate::error::PatternError::{self, Unfinished};
use state_cache_memory::with_capacity;

/// A pattern over keys: `*` stands for any run of characters, `?` for one, `\` takes the next
/// character as it is, everything else stands for itself.
///
/// What a character is, says whoever asks whether a key matches: it depends on the encoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Form);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Form {
    Exact(Vec<u8>),
    Wild(Vec<Token>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Byte(u8),
    One,
    Run,
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// [`Unfinished`], [`PatternError::OutOfMemory`].
    pub fn parse(text: &[u8]) -> Result<Pattern, PatternError> {
        // As many as there are bytes at most.
        let mut tokens = with_capacity(text.len())?;
        let mut bytes = text.iter();
        while let Some(&byte) = bytes.next() {
            match byte {
                b'\\' => tokens.push(Token::Byte(*bytes.next().ok_or(Unfinished)?)),
                b'?' => tokens.push(Token::One),
                // Two runs in a row match what one does.
                b'*' if tokens.last() == Some(&Token::Run) => {}
                b'*' => tokens.push(Token::Run),
                _ => tokens.push(Token::Byte(byte)),
            }
        }
        if tokens.contains(&Token::One) || tokens.contains(&Token::Run) {
            return Ok(Pattern(Form::Wild(tokens)));
        }
        let mut exact = with_capacity(tokens.len())?;
        exact.extend(tokens.iter().filter_map(|token| match token {
            Token::Byte(byte) => Some(*byte),
            Token::One | Token::Run => None,
        }));
        Ok(Pattern(Form::Exact(exact)))
    }

    /// The one key that the pattern matches, when it has no wildcard.
    #[must_use]
    pub fn exact(&self) -> Option<&[u8]> {
        match &self.0 {
            Form::Exact(key) => Some(key),
            Form::Wild(_) => None,
        }
    }

    /// Whether the whole key matches. `character` gives the bytes of the character at the front of what is left
    /// of the key, such as [`utf8_character`].
    ///
    /// Only the latest run is ever extended: what an earlier one could take more, the latest could take
    /// as well. That bounds the work by pattern length × key length.
    #[must_use]
    pub fn matches(&self, key: &[u8], character: impl Fn(&[u8]) -> usize) -> bool {
        // Nothing at the end of the key, and a whole character before.
        let character = |key: &[u8]| match key.len() {
            0 => None,
            left => Some(character(key).clamp(1, left)),
        };
        let tokens = match &self.0 {
            Form::Exact(exact) => return exact == key,
            Form::Wild(tokens) => tokens,
        };
        let (mut token, mut at) = (0, 0);
        // The token behind the latest run, and where the key stands when the run has taken its share.
        let mut retry: Option<(usize, usize)> = None;
        loop {
            let taken = match tokens.get(token) {
                None if at == key.len() => return true,
                None => None,
                Some(Token::Run) => {
                    retry = Some((token + 1, at));
                    Some(0)
                }
                Some(Token::One) => character(&key[at..]),
                Some(Token::Byte(byte)) => (key.get(at) == Some(byte)).then_some(1),
            };
            if let Some(length) = taken {
                token += 1;
                at += length;
                continue;
            }
            // The run takes one character more, a whole one, lest `?` match a part of it.
            let Some((behind, share)) = retry else {
                return false;
            };
            let Some(length) = character(&key[share..]) else {
                return false;
            };
            retry = Some((behind, share + length));
            (token, at) = (behind, share + length);
        }
    }
}

/// Bytes of the character at the front of a text in UTF-8; one for a byte that is no part of one, 0 for an
/// empty text.
#[must_use]
pub fn utf8_character(text: &[u8]) -> usize {
    let length = match text.first() {
        None => return 0,
        Some(0xC2..=0xDF) => 2,
        Some(0xE0..=0xEF) => 3,
        Some(0xF0..=0xF4) => 4,
        Some(_) => 1,
    };
    let whole = text
        .get(..length)
        .is_some_and(|bytes| core::str::from_utf8(bytes).is_ok());
    if whole { length } else { 1 }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{Pattern, PatternError, utf8_character};

    fn matches(pattern: &str, key: &str) -> bool {
        Pattern::parse(pattern.as_bytes())
            .unwrap()
            .matches(key.as_bytes(), utf8_character)
    }

    #[test]
    fn text_without_wildcards_is_exact() {
        let pattern = Pattern::parse(br"run-\*\?\\\x").unwrap();
        assert_eq!(pattern.exact(), Some(&br"run-*?\x"[..]));
        assert!(pattern.matches(br"run-*?\x", utf8_character));
        assert!(!pattern.matches(br"run-ab\x", utf8_character));
        assert_eq!(Pattern::parse(b"").unwrap().exact(), Some(&b""[..]));
        assert_eq!(Pattern::parse(b"a*").unwrap().exact(), None);
        assert_eq!(Pattern::parse(b"?").unwrap().exact(), None);
    }

    #[test]
    fn a_trailing_backslash_is_refused() {
        assert_eq!(Pattern::parse(b"a\\"), Err(PatternError::Unfinished));
        assert!(Pattern::parse(b"a\\\\").is_ok());
        assert_eq!(Pattern::parse(b"a*\\\\\\"), Err(PatternError::Unfinished));
    }

    #[test]
    fn a_run_takes_any_number_of_characters() {
        assert!(matches("*", ""));
        assert!(matches("**", "anything"));
        assert!(matches("run-*", "run-"));
        assert!(matches("run-*", "run-42"));
        assert!(!matches("run-*", "xrun-42"));
        assert!(matches("*-end", "a-end-end"));
        assert!(matches("a*b*c", "a-b-b-c-c"));
        assert!(!matches("a*b*c", "a-c-b"));
        assert!(matches(r"a*\*", "a-b*"));
        assert!(!matches(r"a*\*", "a-b"));
    }

    #[test]
    fn a_question_mark_takes_one_whole_character() {
        assert!(matches("?", "€"));
        assert!(!matches("??", "€"));
        assert!(!matches("*??", "€"));
        assert!(matches("*??", "a€"));
        assert!(matches("*?𝄞", "é𝄞"));
        assert!(!matches("?", ""));
        assert!(!matches("?", "ab"));
        assert!(matches("k?y", "kÿy"));
    }

    #[test]
    fn bytes_that_are_not_utf8_count_one_each() {
        let pattern = Pattern::parse(b"??").unwrap();
        let matches = |key: &[u8]| pattern.matches(key, utf8_character);
        assert!(matches(b"\xff\xfe"));
        assert!(matches(b"\xc3a"));
        assert!(!matches(b"\xc3\xa9"));
        assert!(matches("é\u{e9}".as_bytes()));
        assert!(matches(b"\xe2\x82"));
    }

    #[test]
    fn the_caller_says_what_a_character_is() {
        // EUC_JP: two bytes beyond ASCII, three behind 0x8F.
        let euc_jp = |text: &[u8]| match text[0] {
            0x8F => 3,
            0x80.. => 2,
            _ => 1,
        };
        let matches =
            |pattern: &[u8], key: &[u8]| Pattern::parse(pattern).unwrap().matches(key, euc_jp);
        assert!(matches(b"k?", b"k\xb4\xc1"));
        assert!(!matches(b"k??", b"k\xb4\xc1"));
        assert!(matches(b"k??", b"k\xa4\xa2\xa4\xa4"));
        assert!(matches(b"?", b"\x8f\xb0\xa1"));
        // The second half of one character and the first of the next are no character.
        assert!(matches(b"*\xa2*", b"\xa2\xa2"));
        assert!(!matches(b"*\xa2\xa4*", b"\xa4\xa2\xa4\xa4"));
        // A character that the end of the key cuts is one all the same, and one of no bytes ends no loop.
        assert!(matches(b"k?", b"k\xb4"));
        assert!(Pattern::parse(b"*?a").unwrap().matches(b"xa", |_| 0));
    }

    #[test]
    fn many_runs_cost_no_more_than_pattern_times_key() {
        // With a recursive matcher this pair takes longer than the age of the universe.
        let pattern = "a*".repeat(2_000) + "b";
        let key = "a".repeat(20_000);
        assert!(!matches(&pattern, &key));
    }
}
