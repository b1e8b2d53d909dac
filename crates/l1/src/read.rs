//! Reading: one lookup under the shared lock, then a copy or a look at the value where it lies.

use crate::cache::L1;
use crate::chunked::Chunked;
use crate::entry::{EntryHeader, EntryInfo, Key};
use crate::locks::Locks;
use crate::partition::Shard;

/// What a read is to copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Nothing.
    Info,
    /// The value.
    Value,
    /// The text form, where one is attached.
    Text,
}

/// What a read found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// No entry that may be read.
    Miss,
    /// The buffer is smaller than the `len` bytes wanted; nothing was copied.
    TooSmall {
        /// Bytes needed.
        len: usize,
    },
    /// The entry. What was wanted is in the first `value_len` or `text_len` bytes of the buffer; with
    /// [`Want::Text`] and no text form nothing was copied.
    Hit(EntryInfo),
    /// The entry fails its check; the buffer holds nothing of use. The caller removes it.
    Damaged,
}

/// What [`L1::with_value`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View<R> {
    /// No entry that may be read.
    Miss,
    /// What the function returned.
    Hit(R),
    /// The entry fails its check. The caller removes it.
    Damaged,
}

impl<K: Locks> L1<K> {
    /// Looks an entry up and copies what is wanted of it. Does not allocate; one shared lock.
    pub fn read(&self, key: &Key<'_>, want: Want, into: &mut [u8]) -> Lookup {
        self.on_entry(key, |head, entry| {
            let info = entry.info();
            let (from, offset, len) = match (want, entry.text()) {
                (Want::Info, _) | (Want::Text, None) => return View::Hit(Lookup::Hit(info)),
                (Want::Value, _) => (head, entry.value_at(), entry.value_len as usize),
                (Want::Text, Some((text, len))) => (text, 0, len as usize),
            };
            if len > self.geometry().bytes() {
                return View::Damaged;
            }
            let Some(into) = into.get_mut(..len) else {
                return View::Hit(Lookup::TooSmall { len });
            };
            // SAFETY: `on_entry` holds the partition's lock.
            if unsafe { self.arena.copy_out(from, offset, into) } {
                View::Hit(Lookup::Hit(info))
            } else {
                View::Damaged
            }
        })
        .into()
    }

    /// Runs `f` on an entry's value where it lies.
    ///
    /// `f` runs under the partition's shared lock: it must not block, call the cache, allocate from
    /// PostgreSQL or raise errors. Does not allocate itself.
    pub fn with_value<R>(
        &self,
        key: &Key<'_>,
        f: impl FnOnce(&EntryInfo, &Chunked<'_>) -> R,
    ) -> View<R> {
        self.on_entry(key, |head, entry| {
            // SAFETY: `on_entry` holds the partition's lock until this closure returns.
            let value = unsafe { Chunked::new(&self.arena, head, entry) };
            let result = f(&entry.info(), &value);
            if value.is_broken() {
                View::Damaged
            } else {
                View::Hit(result)
            }
        })
    }

    /// Runs `f` on the header of an entry that may be read, under the shared lock.
    fn on_entry<R>(&self, key: &Key<'_>, f: impl FnOnce(u32, &EntryHeader) -> View<R>) -> View<R> {
        let shard = Shard::lock(self, self.partition_of(key.id.words()));
        let Ok(found) = shard.find(key) else {
            return View::Damaged;
        };
        let Some(head) = found else {
            return View::Miss;
        };
        match shard.entry(head) {
            Some(entry) if !entry.is_sound() => View::Damaged,
            Some(entry) if !shard.is_stale(entry) => {
                entry.touch();
                f(head, entry)
            }
            _ => View::Miss,
        }
    }
}

impl From<View<Lookup>> for Lookup {
    fn from(view: View<Lookup>) -> Lookup {
        match view {
            View::Miss => Lookup::Miss,
            View::Hit(lookup) => lookup,
            View::Damaged => Lookup::Damaged,
        }
    }
}
