//! The list of states that L1 held: names only, so a list that is out of date costs a few reads and no more.
//!
//! ```text
//! magic (8 bytes) | entries: incarnation u64, class length u8, key length u16, class, key | xxh3-128 of all before
//! ```
//!
//! Numbers are little-endian.

use state_cache_memory::Grow;
use std::io::{self, Read, Write};
use std::path::Path;

/// First bytes of a list, with the version of the format.
const MAGIC: &[u8; 8] = b"scwarm\0\x02";

/// Bytes of the hash at the end.
const HASH: usize = 16;

/// Bytes of an entry before its names.
const HEAD: usize = 8 + 1 + 2;

/// The largest list in bytes. At some 40 bytes an entry it names more states than most caches hold; what is
/// over it is left out.
pub const MAX_LIST: usize = 64 << 20;

/// A state that L1 held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// Which installation of the extension.
    pub incarnation: u64,
    /// Its class.
    pub class: Box<[u8]>,
    /// Its key.
    pub key: Box<[u8]>,
}

/// A list under construction.
pub struct List {
    bytes: Vec<u8>,
}

impl Default for List {
    fn default() -> Self {
        Self {
            bytes: MAGIC.to_vec(),
        }
    }
}

impl List {
    /// Adds a state; false if the list is full, there is no memory for it, or a name is too long to be one.
    pub fn push(&mut self, incarnation: u64, class: &[u8], key: &[u8]) -> bool {
        let (Ok(class_len), Ok(key_len)) = (u8::try_from(class.len()), u16::try_from(key.len()))
        else {
            return false;
        };
        let more = HEAD + class.len() + key.len();
        // With room for the hash, so that the list can always be finished.
        if self.bytes.len() + more + HASH > MAX_LIST || self.bytes.try_room(more + HASH).is_err() {
            return false;
        }
        self.bytes.extend(incarnation.to_le_bytes());
        self.bytes.push(class_len);
        self.bytes.extend(key_len.to_le_bytes());
        self.bytes.extend(class);
        self.bytes.extend(key);
        true
    }

    /// Whether nothing was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.len() == MAGIC.len()
    }

    /// The finished list.
    #[must_use]
    pub fn encode(mut self) -> Vec<u8> {
        let hash = state_cache_document::hash(&self.bytes);
        self.bytes.extend(hash.to_le_bytes());
        self.bytes
    }

    /// Writes it to a file: first beside it, then renamed, so that the file is whole or not there.
    ///
    /// # Errors
    ///
    /// Whatever the file system says; nothing is left beside the file then, if that can be had.
    pub fn write(self, path: &Path) -> io::Result<()> {
        let beside = path.with_added_extension("tmp");
        let written = std::fs::File::create(&beside)
            .and_then(|mut file| {
                file.write_all(&self.encode())?;
                file.sync_all()
            })
            .and_then(|()| std::fs::rename(&beside, path));
        if written.is_err() {
            let _ = std::fs::remove_file(&beside);
        }
        written
    }
}

/// The states of a list in its order; `None` if it is damaged or none of ours, or there is no memory for it.
#[must_use]
pub fn decode(list: &[u8]) -> Option<Vec<Name>> {
    let (content, hash) = list.split_last_chunk::<HASH>()?;
    if state_cache_document::hash(content).to_le_bytes() != *hash {
        return None;
    }
    let mut rest = content.strip_prefix(MAGIC)?;
    let mut names = Vec::new();
    while !rest.is_empty() {
        let (incarnation, after) = rest.split_first_chunk::<8>()?;
        let (class_len, after) = after.split_first()?;
        let (key_len, after) = after.split_first_chunk::<2>()?;
        let (class, after) = after.split_at_checked((*class_len).into())?;
        let (key, after) = after.split_at_checked(u16::from_le_bytes(*key_len).into())?;
        let name = Name {
            incarnation: u64::from_le_bytes(*incarnation),
            class: class.into(),
            key: key.into(),
        };
        names.try_push(name).ok()?;
        rest = after;
    }
    Some(names)
}

/// Reads a list from a file; `None` if there is no file, it is larger than [`MAX_LIST`] or damaged.
#[must_use]
pub fn read(path: &Path) -> Option<Vec<Name>> {
    let file = std::fs::File::open(path).ok()?;
    let mut list = Vec::new();
    // One byte more than allowed, to see that there is one.
    file.take(MAX_LIST as u64 + 1).read_to_end(&mut list).ok()?;
    if list.len() > MAX_LIST {
        return None;
    }
    decode(&list)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn name(n: u8) -> Name {
        Name {
            incarnation: u64::MAX - u64::from(n),
            class: vec![b'c'; usize::from(n % 64)].into(),
            // Beyond what a byte can say.
            key: vec![n; 4 * usize::from(n)].into(),
        }
    }

    fn list(numbers: std::ops::RangeInclusive<u8>) -> List {
        let mut list = List::default();
        for name in numbers.map(name) {
            assert!(list.push(name.incarnation, &name.class, &name.key));
        }
        list
    }

    #[test]
    fn a_list_comes_back_in_its_order() {
        assert!(List::default().is_empty());
        assert_eq!(decode(&List::default().encode()), Some(Vec::new()));
        let names: Vec<Name> = (0..=255).map(name).collect();
        assert_eq!(decode(&list(0..=255).encode()), Some(names));
    }

    #[test]
    fn names_that_cannot_be_are_left_out() {
        let mut list = List::default();
        assert!(!list.push(1, b"run", &[b'k'; 65_536]));
        assert!(list.is_empty());
    }

    #[test]
    fn a_damaged_list_is_refused() {
        let good = list(0..=20).encode();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert_eq!(decode(&bad), None, "byte {at}");
            assert_eq!(decode(&good[..at]), None, "cut to {at} bytes");
        }
    }

    /// The hash only says that the bytes are those that were written.
    #[test]
    fn lengths_that_lead_beyond_the_end_are_refused() {
        let mut list = list(1..=1);
        list.bytes[MAGIC.len() + 8] = 200;
        assert_eq!(decode(&list.encode()), None);
        let mut cut = List::default();
        cut.bytes.extend([0; HEAD - 1]);
        assert_eq!(decode(&cut.encode()), None);
    }

    #[test]
    fn a_file_is_whole_or_not_there() {
        let directory =
            std::env::temp_dir().join(format!("state_cache_resident_{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("list");
        assert_eq!(read(&path), None);
        list(1..=3).write(&path).unwrap();
        assert_eq!(read(&path).unwrap().len(), 3);
        list(1..=9).write(&path).unwrap();
        assert_eq!(read(&path).unwrap().len(), 9);
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1);
        assert!(list(1..=3).write(&directory.join("none/list")).is_err());
        // A directory in its place: neither the file nor the one beside it.
        let blocked = directory.join("blocked");
        std::fs::create_dir_all(blocked.join("full")).unwrap();
        assert!(list(1..=3).write(&blocked).is_err());
        assert!(!directory.join("blocked.tmp").exists());
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_list_stops_growing() {
        let mut list = List::default();
        list.bytes.resize(MAX_LIST - HASH - HEAD - 4, 0);
        assert!(!list.push(1, b"run", b"k7"));
        assert!(list.push(1, b"run", b"k"));
        assert!(!list.push(1, b"", b""));
        assert_eq!(list.encode().len(), MAX_LIST);
    }
}
