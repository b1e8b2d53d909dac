//! What the ring holds: one record for each change.
//!
//! ```text
//! length u32 | database u32 | change u8 | length of class u8 | length of key u16 | version i64 | class | key
//! ```
//!
//! Integers are in the machine's byte order: the ring does not outlive the server.

use state_cache_memory::{OutOfMemory, with_capacity};

/// Bytes in front of the names.
const HEADER: usize = 20;
/// The longest class, in bytes; classes are identifiers, at most 63 bytes.
const MAX_CLASS: usize = 255;
/// The longest key or pattern, in bytes. Keys have at most 1000; a longer pattern would not fit into a message.
const MAX_KEY: usize = 8000;
/// The largest record, in bytes.
pub const MAX_RECORD: usize = HEADER + MAX_CLASS + MAX_KEY;

/// What happened to a state, or to several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It has this version now.
    Set(i64),
    /// It was deleted by this version; 0 if by hand, which leaves no version behind.
    Delete(i64),
    /// Entries whose keys match the pattern that stands in the key's place are to be dropped.
    Matching,
    /// Anything may have happened to any state of the class, or of the database if the class is empty.
    Everything,
}

/// One change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// OID of the database.
    pub database: u32,
    /// The class's name; empty for all of the database.
    pub class: &'a [u8],
    /// The key, or a pattern.
    pub key: &'a [u8],
    /// What happened.
    pub change: Change,
}

/// What was read is no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damaged;

impl<'a> Record<'a> {
    /// The same, or if a name is too long for a record, more than that.
    fn fitting(self) -> Self {
        let everything = |class| Self {
            class,
            key: &[],
            change: Change::Everything,
            ..self
        };
        match (self.class.len() <= MAX_CLASS, self.key.len() <= MAX_KEY) {
            (true, true) => self,
            (true, false) => everything(self.class),
            (false, _) => everything(&[]),
        }
    }

    /// Bytes of it in the ring.
    #[must_use]
    #[allow(clippy::len_without_is_empty)] // No record is empty.
    pub fn len(&self) -> usize {
        let fitting = self.fitting();
        HEADER + fitting.class.len() + fitting.key.len()
    }

    fn encode(self, into: &mut Vec<u8>) {
        let Self {
            database,
            class,
            key,
            change,
        } = self.fitting();
        let (change, version) = match change {
            Change::Set(version) => (1u8, version),
            Change::Delete(version) => (2, version),
            Change::Matching => (3, 0),
            Change::Everything => (4, 0),
        };
        let len = HEADER + class.len() + key.len();
        into.extend((len as u32).to_ne_bytes());
        into.extend(database.to_ne_bytes());
        into.extend([change, class.len() as u8]);
        into.extend((key.len() as u16).to_ne_bytes());
        into.extend(version.to_ne_bytes());
        into.extend(class);
        into.extend(key);
    }

    /// Reads the record that begins `bytes`; with it, what follows.
    fn decode(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let len = whole_record(bytes)?;
        let (record, rest) = bytes.split_at(len);
        let (header, names) = record.split_first_chunk::<HEADER>()?;
        let [
            _,
            _,
            _,
            _,
            d0,
            d1,
            d2,
            d3,
            change,
            class,
            k0,
            k1,
            version @ ..,
        ] = *header;
        let version = i64::from_ne_bytes(version);
        let change = match change {
            1 => Change::Set(version),
            2 => Change::Delete(version),
            3 => Change::Matching,
            4 => Change::Everything,
            _ => return None,
        };
        let (class, key) = names.split_at_checked(class.into())?;
        let record = Self {
            database: u32::from_ne_bytes([d0, d1, d2, d3]),
            class,
            key,
            change,
        };
        (key.len() == usize::from(u16::from_ne_bytes([k0, k1]))).then_some((record, rest))
    }
}

/// Bytes of the record that begins `bytes`, if it is there as a whole and can be one.
fn whole_record(bytes: &[u8]) -> Option<usize> {
    let len = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    ((HEADER..=MAX_RECORD).contains(&len) && len <= bytes.len()).then_some(len)
}

/// Bytes of the whole records that `bytes` begins with.
pub fn whole_records(bytes: &[u8]) -> usize {
    let mut whole = 0;
    while let Some(len) = whole_record(&bytes[whole..]) {
        whole += len;
    }
    whole
}

/// The records in `bytes`. The first that is none ends them.
pub fn decode(mut bytes: &[u8]) -> impl Iterator<Item = Result<Record<'_>, Damaged>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let decoded = Record::decode(bytes);
        bytes = decoded.map_or(&[], |(_, rest)| rest);
        Some(decoded.map(|(record, _)| record).ok_or(Damaged))
    })
}

/// The records of changes in one database, in at most `room` bytes: where they need more, each class that
/// changed is one record, and where that is still too much, everything is.
///
/// # Errors
/// [`OutOfMemory`].
pub fn encode(database: u32, records: &[Record<'_>], room: usize) -> Result<Vec<u8>, OutOfMemory> {
    let encode_all = |records: &mut dyn Iterator<Item = Record<'_>>, len: usize| {
        let mut bytes = with_capacity(len)?;
        records.for_each(|record| record.encode(&mut bytes));
        Ok(bytes)
    };
    let len = records.iter().map(Record::len).sum();
    if len <= room {
        return encode_all(&mut records.iter().copied(), len);
    }
    let mut coarse: Vec<Record<'_>> = with_capacity(records.len())?;
    for record in records {
        let record = match record.change {
            // Another channel hears of these.
            Change::Matching => Record {
                key: b"*",
                ..*record
            },
            _ => Record {
                key: &[],
                change: Change::Everything,
                ..*record
            },
        };
        coarse.push(record);
    }
    // In place: a stable sort takes memory.
    coarse.sort_unstable_by_key(|record| (record.class, record.key));
    coarse.dedup();
    let len = coarse.iter().map(Record::len).sum();
    if len <= room {
        return encode_all(&mut coarse.into_iter(), len);
    }
    let everything = Record {
        database,
        class: &[],
        key: &[],
        change: Change::Everything,
    };
    encode_all(&mut std::iter::once(everything), HEADER)
}
