//! Memory whose size comes from data: a document, a text, a list as long as somebody's array.
//!
//! Rust's own collections abort the process where there is no memory for them, which takes the whole server
//! down. What is sized by data is therefore asked for with the functions of this crate, which refuse with
//! [`OutOfMemory`]. What is small and of a fixed size (a name, a node, a reference count) may be asked for as
//! usual: the allocator of the extension keeps some memory back for that.

#![forbid(unsafe_code)]

use core::fmt;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hash};

/// There was no memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfMemory {
    /// Bytes that were asked for.
    pub size: usize,
}

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "out of memory for {} bytes", self.size)
    }
}

impl core::error::Error for OutOfMemory {}

/// The refusal of room for `count` values.
fn refused<T>(count: usize) -> OutOfMemory {
    OutOfMemory {
        size: count.saturating_mul(size_of::<T>()),
    }
}

/// An empty vector with room for exactly so many values.
///
/// # Errors
/// [`OutOfMemory`].
pub fn with_capacity<T>(capacity: usize) -> Result<Vec<T>, OutOfMemory> {
    let mut made = Vec::new();
    match made.try_reserve_exact(capacity) {
        Ok(()) => Ok(made),
        Err(_) => Err(refused::<T>(capacity)),
    }
}

/// A copy of these values.
///
/// # Errors
/// [`OutOfMemory`].
pub fn copy<T: Copy>(values: &[T]) -> Result<Vec<T>, OutOfMemory> {
    let mut made = with_capacity(values.len())?;
    made.extend_from_slice(values);
    Ok(made)
}

/// A copy of bytes, for good.
///
/// # Errors
/// [`OutOfMemory`].
pub fn boxed(bytes: &[u8]) -> Result<Box<[u8]>, OutOfMemory> {
    copy(bytes).map(Vec::into_boxed_slice)
}

/// A copy of bytes that are borrowed or owned; a borrowed one is borrowed, too.
///
/// # Errors
/// [`OutOfMemory`].
pub fn copy_cow<'a>(bytes: &Cow<'a, [u8]>) -> Result<Cow<'a, [u8]>, OutOfMemory> {
    Ok(match bytes {
        Cow::Borrowed(bytes) => Cow::Borrowed(bytes),
        Cow::Owned(bytes) => Cow::Owned(copy(bytes)?),
    })
}

/// Bytes that are borrowed or owned as owned ones.
///
/// # Errors
/// [`OutOfMemory`].
pub fn owned(bytes: Cow<'_, [u8]>) -> Result<Vec<u8>, OutOfMemory> {
    match bytes {
        Cow::Borrowed(bytes) => copy(bytes),
        Cow::Owned(bytes) => Ok(bytes),
    }
}

/// A text, of what may be long.
///
/// # Errors
/// [`OutOfMemory`].
pub fn format(arguments: fmt::Arguments<'_>) -> Result<String, OutOfMemory> {
    struct Text(String, Option<OutOfMemory>);
    impl fmt::Write for Text {
        fn write_str(&mut self, more: &str) -> fmt::Result {
            if self.0.try_reserve(more.len()).is_err() {
                self.1 = Some(refused::<u8>(self.0.len().saturating_add(more.len())));
                return Err(fmt::Error);
            }
            self.0.push_str(more);
            Ok(())
        }
    }
    let mut text = Text(String::new(), None);
    // What is written refuses nothing itself.
    let _ = fmt::Write::write_fmt(&mut text, arguments);
    match text.1 {
        Some(refused) => Err(refused),
        None => Ok(text.0),
    }
}

/// A vector of so many equal values.
///
/// # Errors
/// [`OutOfMemory`].
pub fn filled<T: Copy>(value: T, count: usize) -> Result<Vec<T>, OutOfMemory> {
    let mut made = with_capacity(count)?;
    made.resize(count, value);
    Ok(made)
}

/// All values of an iterator.
///
/// # Errors
/// [`OutOfMemory`].
pub fn collect<T>(values: impl IntoIterator<Item = T>) -> Result<Vec<T>, OutOfMemory> {
    try_collect(values.into_iter().map(Ok))
}

/// All values of an iterator that may fail.
///
/// # Errors
/// The iterator's first error, and [`OutOfMemory`].
pub fn try_collect<T, E: From<OutOfMemory>>(
    values: impl IntoIterator<Item = Result<T, E>>,
) -> Result<Vec<T>, E> {
    let values = values.into_iter();
    let mut made = with_capacity(values.size_hint().0)?;
    for value in values {
        made.try_push(value?)?;
    }
    Ok(made)
}

/// What a vector does fallibly.
pub trait Grow<T> {
    /// Makes room for so many more values, and for a share of what is there, so that pushing one after the other
    /// does not move them each time.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    fn try_room(&mut self, more: usize) -> Result<(), OutOfMemory>;

    /// Adds a value at the end.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    fn try_push(&mut self, value: T) -> Result<(), OutOfMemory>;

    /// Adds copies of values at the end.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    fn try_extend(&mut self, values: &[T]) -> Result<(), OutOfMemory>
    where
        T: Copy;
}

impl<T> Grow<T> for Vec<T> {
    #[inline]
    fn try_room(&mut self, more: usize) -> Result<(), OutOfMemory> {
        match self.try_reserve(more) {
            Ok(()) => Ok(()),
            Err(_) => {
                // What it grows to, see `try_room` of the trait.
                let grown = self.capacity().saturating_mul(2);
                Err(refused::<T>(grown.max(self.len().saturating_add(more))))
            }
        }
    }

    #[inline]
    fn try_push(&mut self, value: T) -> Result<(), OutOfMemory> {
        self.try_room(1)?;
        self.push(value);
        Ok(())
    }

    #[inline]
    fn try_extend(&mut self, values: &[T]) -> Result<(), OutOfMemory>
    where
        T: Copy,
    {
        self.try_room(values.len())?;
        self.extend_from_slice(values);
        Ok(())
    }
}

/// Makes room for so many more entries in a map.
///
/// # Errors
/// [`OutOfMemory`].
pub fn room_in_map<K: Eq + Hash, V, S: BuildHasher>(
    map: &mut HashMap<K, V, S>,
    more: usize,
) -> Result<(), OutOfMemory> {
    match map.try_reserve(more) {
        Ok(()) => Ok(()),
        Err(_) => Err(refused::<(K, V)>(map.len().saturating_add(more))),
    }
}

/// Makes room for so many more values in a set.
///
/// # Errors
/// [`OutOfMemory`].
pub fn room_in_set<T: Eq + Hash, S: BuildHasher>(
    set: &mut HashSet<T, S>,
    more: usize,
) -> Result<(), OutOfMemory> {
    match set.try_reserve(more) {
        Ok(()) => Ok(()),
        Err(_) => Err(refused::<T>(set.len().saturating_add(more))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_had_is_refused_with_its_size() {
        // More than an address space holds, and more than a length can say.
        let size = usize::MAX / 4;
        assert_eq!(with_capacity::<u8>(size), Err(OutOfMemory { size }));
        let refused = OutOfMemory { size: usize::MAX };
        assert_eq!(with_capacity::<u64>(usize::MAX), Err(refused));
        assert_eq!(filled(0_u8, size), Err(OutOfMemory { size }));
        let mut some = vec![1_u8];
        let refused = OutOfMemory { size: size + 1 };
        assert_eq!(some.try_room(size), Err(refused));
        assert_eq!(some, [1]);
        let mut map = HashMap::from([(1_u8, 2_u8)]);
        assert!(room_in_map(&mut map, size).is_err());
        let mut set = HashSet::from([1_u8]);
        assert!(room_in_set(&mut set, size).is_err());
    }

    #[test]
    fn what_can_be_had_is_as_of_the_collections() {
        assert_eq!(copy(b"abc"), Ok(b"abc".to_vec()));
        assert_eq!(filled(7, 3), Ok(vec![7; 3]));
        assert_eq!(collect(0..5), Ok(vec![0, 1, 2, 3, 4]));
        assert_eq!(format(format_args!("{}-{}", 1, "a")), Ok("1-a".to_owned()));
        let some = [Ok(1), Err(OutOfMemory { size: 9 }), Ok(2)];
        assert_eq!(try_collect(some), Err(OutOfMemory { size: 9 }));
        let mut grown = Vec::new();
        assert_eq!(grown.try_push(1), Ok(()));
        assert_eq!(grown.try_extend(&[2, 3]), Ok(()));
        assert_eq!(grown, [1, 2, 3]);
    }
}
