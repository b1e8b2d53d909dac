//! What changed from one document to another, as a JSON Patch (RFC 6902).
//!
//! Only `add`, `remove` and `replace` are used. Objects are compared key by key. Arrays lose the
//! elements that they share at the front and at the back; what is left is compared place by place, and
//! the surplus is added or removed. Elements are compared as bytes: 1.0 and 1.00 are different states.
//!
//! A container is replaced as a whole as soon as the operations within it take more bytes than that. An
//! object is spared this while its operations stay within [`READABLE`]: which of a few fields changed is
//! what a reader wants to know, while the places of an array say little once most of it is new. What a
//! spared object takes beyond its replacement does not count against the containers around it: what
//! becomes of them is decided as if it had been replaced.
//!
//! The patch as a whole never takes more than [`READABLE`] or a replacement of the whole document,
//! whichever is more. An object that would lead beyond that is not spared; where those spared before it
//! leave too little room even so, the patch is made again with none spared. So a patch is never much
//! larger than the document that it leads to, whatever the two have in common, no more operations than
//! that are ever held, and no container is compared more than twice.

use core::cmp::Ordering;
use core::ops::Range;

use crate::build::Builder;
use crate::container::{Container, Pair, Shape};
use crate::error::DocumentError::{self, Damaged};
use crate::format::{CONTAINER, STRING, WORD};
use crate::item::{Item, key_order};
use crate::merge::StackGuard;
use state_cache_memory::{Grow, with_capacity};

/// The JSON Patch (RFC 6902) that makes `to` of `from`: a jsonb array of operations, empty when the
/// documents are equal.
///
/// Padding aside, which is at most a seventh, it takes no more bytes than `to` and 60, or than 1,024 where
/// that is more.
///
/// # Errors
/// [`Damaged`]; [`DocumentError::TooLarge`], which only a `to` close to the limit itself can bring
/// about; [`DocumentError::OutOfMemory`]; and what `guard` raises.
pub fn diff(from: &[u8], to: &[u8], guard: StackGuard) -> Result<Vec<u8>, DocumentError> {
    let from = Container::root_item(from)?;
    let to = Container::root_item(to)?;
    let most = READABLE.max(Change::Replace(to).size(0));
    let mut patch = Patch::new(READABLE, most, guard);
    if !patch.compare(&from, &to, most)? {
        // What the objects were spared is what was too much: without, the replacement of the whole fits.
        drop(patch);
        patch = Patch::new(0, most, guard);
        patch.compare(&from, &to, most)?;
    }
    patch.build()
}

/// Bytes up to which the operations within an object are kept although a replacement takes less: about
/// fifteen of them, which is as many as are read with ease.
const READABLE: usize = 1_024;

/// What is done at a path.
#[derive(Clone, Copy)]
enum Change<'a> {
    Add(Item<'a>),
    Remove,
    Replace(Item<'a>),
}

impl<'a> Change<'a> {
    fn name(&self) -> &'static [u8] {
        match self {
            Self::Add(_) => b"add",
            Self::Remove => b"remove",
            Self::Replace(_) => b"replace",
        }
    }

    fn value(&self) -> Option<&Item<'a>> {
        match self {
            Self::Add(value) | Self::Replace(value) => Some(value),
            Self::Remove => None,
        }
    }

    /// Bytes that the operation takes in the patch, padding aside.
    fn size(&self, path: usize) -> usize {
        // Entry in the patch, header, and an entry for each key and each of their values.
        let (pairs, value) = match self.value() {
            Some(value) => (3, VALUE.len() + value.bytes.len()),
            None => (2, 0),
        };
        (2 + 2 * pairs) * WORD + OP.len() + self.name().len() + PATH.len() + path + value
    }
}

/// The keys of an operation, in jsonb's order: the shorter first.
const OP: &[u8] = b"op";
const PATH: &[u8] = b"path";
const VALUE: &[u8] = b"value";

struct Operation<'a> {
    change: Change<'a>,
    /// Where its path lies in [`Patch::paths`].
    path: Range<usize>,
}

/// The operations found so far.
struct Patch<'a> {
    operations: Vec<Operation<'a>>,
    /// Their paths, one behind the other.
    paths: Vec<u8>,
    /// JSON Pointer (RFC 6901) of the place that is compared.
    path: Vec<u8>,
    /// Sum of [`Change::size`] of the operations.
    size: usize,
    /// The part of it that objects take beyond their replacements.
    spared: usize,
    /// Bytes of operations up to which an object is spared.
    readable: usize,
    /// What `size` must not exceed.
    most: usize,
    /// Whether it would have: nothing is added any more.
    full: bool,
    guard: StackGuard,
}

/// Whether the operations stay within the cost that was allowed. When they do not, they are incomplete
/// and for the caller to take back.
type Fits = bool;

/// The elements of a container.
enum Elements<'a> {
    Object(Vec<Pair<'a>>),
    Array(Vec<Item<'a>>),
}

impl<'a> Patch<'a> {
    fn new(readable: usize, most: usize, guard: StackGuard) -> Self {
        Patch {
            operations: Vec::new(),
            paths: Vec::new(),
            path: Vec::new(),
            size: 0,
            spared: 0,
            readable,
            most,
            full: false,
            guard,
        }
    }

    /// What the operations would take if each spared object were replaced.
    fn cost(&self) -> usize {
        self.size - self.spared
    }

    /// Adds what makes `to` of `from` at the current path, so that all operations together cost no more
    /// than `limit`.
    fn compare(
        &mut self,
        from: &Item<'a>,
        to: &Item<'a>,
        limit: usize,
    ) -> Result<Fits, DocumentError> {
        if is_same(from, to) {
            return Ok(true);
        }
        let replace = Change::Replace(*to);
        if from.kind == CONTAINER && to.kind == CONTAINER {
            let replaced = self.cost() + replace.size(self.path.len());
            if self.compare_elements(from, to, replaced, limit)? {
                return Ok(true);
            }
        }
        self.push(replace, limit)
    }

    /// The same for two containers, by operations within them, where a replacement would bring the cost
    /// to `replaced`. None is left when they do not fit, or when one is an object and the other an array.
    fn compare_elements(
        &mut self,
        from: &Item<'a>,
        to: &Item<'a>,
        replaced: usize,
        limit: usize,
    ) -> Result<Fits, DocumentError> {
        (self.guard)();
        let (operations, paths) = (self.operations.len(), self.paths.len());
        let (size, spared) = (self.size, self.spared);
        let fits = match (elements(from)?, elements(to)?) {
            (Elements::Object(from), Elements::Object(to)) => {
                // Once spared, the object costs what its replacement does: that must fit by itself.
                let spare = if replaced <= limit {
                    self.readable.min(self.most - self.size)
                } else {
                    0
                };
                let within = limit.min(replaced).max(self.cost() + spare);
                self.compare_objects(&from, &to, within)? && self.spare(replaced, size + spare)
            }
            (Elements::Array(from), Elements::Array(to)) => {
                self.compare_arrays(&from, &to, limit.min(replaced))?
            }
            _ => false,
        };
        if !fits {
            self.operations.truncate(operations);
            self.paths.truncate(paths);
            self.size = size;
            self.spared = spared;
        }
        Ok(fits)
    }

    /// Lets the operations of an object cost no more than its replacement would, if they cost no more
    /// anyway or their sizes keep within `readable`.
    fn spare(&mut self, replaced: usize, readable: usize) -> Fits {
        let over = self.cost().saturating_sub(replaced);
        if over > 0 && self.size > readable {
            return false;
        }
        self.spared += over;
        true
    }

    fn compare_objects(
        &mut self,
        mut from: &[Pair<'a>],
        mut to: &[Pair<'a>],
        limit: usize,
    ) -> Result<Fits, DocumentError> {
        let parent = self.path.len();
        loop {
            let order = match (from.first(), to.first()) {
                (None, None) => return Ok(true),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(old), Some(new)) => key_order(old.key, new.key),
            };
            let old = if order.is_le() {
                from.split_off_first()
            } else {
                None
            };
            let new = if order.is_ge() {
                to.split_off_first()
            } else {
                None
            };
            let fits = match (old, new) {
                (Some(old), Some(new)) if is_same(&old.value, &new.value) => true,
                (Some(old), Some(new)) => {
                    self.enter_key(new.key)?;
                    self.compare(&old.value, &new.value, limit)?
                }
                (Some(old), None) => {
                    self.enter_key(old.key)?;
                    self.push(Change::Remove, limit)?
                }
                (None, Some(new)) => {
                    self.enter_key(new.key)?;
                    self.push(Change::Add(new.value), limit)?
                }
                (None, None) => true,
            };
            self.path.truncate(parent);
            if !fits {
                return Ok(false);
            }
        }
    }

    fn compare_arrays(
        &mut self,
        from: &[Item<'a>],
        to: &[Item<'a>],
        limit: usize,
    ) -> Result<Fits, DocumentError> {
        let parent = self.path.len();
        let front = shared(from.iter(), to.iter());
        let (from, to) = (&from[front..], &to[front..]);
        let back = shared(from.iter().rev(), to.iter().rev());
        let (from, to) = (&from[..from.len() - back], &to[..to.len() - back]);
        let both = from.len().min(to.len());
        for (place, (old, new)) in from.iter().zip(to).enumerate() {
            self.enter_place(front + place)?;
            let fits = self.compare(old, new, limit)?;
            self.path.truncate(parent);
            if !fits {
                return Ok(false);
            }
        }
        // Each added element stands behind the one before; removed are the last ones first, so that the
        // places of the others stay.
        let added = to.iter().enumerate().skip(both);
        let added = added.map(|(place, new)| (place, Change::Add(*new)));
        let removed = (both..from.len()).rev();
        let removed = removed.map(|place| (place, Change::Remove));
        for (place, change) in added.chain(removed) {
            self.enter_place(front + place)?;
            let fits = self.push(change, limit)?;
            self.path.truncate(parent);
            if !fits {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Makes the path that of an element of an object. No character of a server encoding but `~` and
    /// `/` themselves holds their bytes.
    fn enter_key(&mut self, key: &[u8]) -> Result<(), DocumentError> {
        // Each byte becomes two at most.
        self.path.try_room(1 + 2 * key.len())?;
        self.path.push(b'/');
        for byte in key {
            match byte {
                b'~' => self.path.extend_from_slice(b"~0"),
                b'/' => self.path.extend_from_slice(b"~1"),
                other => self.path.push(*other),
            }
        }
        Ok(())
    }

    /// Makes the path that of an element of an array.
    fn enter_place(&mut self, place: usize) -> Result<(), DocumentError> {
        self.path.try_push(b'/')?;
        self.path.try_extend(place.to_string().as_bytes())?;
        Ok(())
    }

    /// Adds an operation at the current path if there is room for it.
    fn push(&mut self, change: Change<'a>, limit: usize) -> Result<Fits, DocumentError> {
        let size = self.size + change.size(self.path.len());
        if self.full || size - self.spared > limit {
            return Ok(false);
        }
        if size > self.most {
            self.full = true;
            return Ok(false);
        }
        let start = self.paths.len();
        self.paths.try_extend(&self.path)?;
        self.operations.try_push(Operation {
            change,
            path: start..self.paths.len(),
        })?;
        self.size = size;
        Ok(true)
    }

    /// The operations as a jsonb array.
    fn build(&self) -> Result<Vec<u8>, DocumentError> {
        // At most three bytes of padding before an operation and three before its value.
        let mut out = with_capacity(WORD + self.size + 6 * self.operations.len())?;
        let mut array = Builder::array(&mut out, self.operations.len())?;
        for Operation { change, path } in &self.operations {
            let path = &self.paths[path.clone()];
            let value = change.value();
            let pairs = 2 + usize::from(value.is_some());
            let mut object = Builder::object(&mut out, pairs)?;
            for key in [OP, PATH, VALUE].iter().take(pairs) {
                object.put(&mut out, &string(key))?;
            }
            for item in [string(change.name()), string(path)].iter().chain(value) {
                object.put(&mut out, item)?;
            }
            array.adopt(&mut out, object)?;
        }
        array.finish(&out)?;
        Ok(out)
    }
}

/// The elements of a container, which was opened on a stack frame of its own: a level of the recursion
/// must not take more stack than it needs.
#[inline(never)]
fn elements<'a>(item: &Item<'a>) -> Result<Elements<'a>, DocumentError> {
    let mut container = Container::of_item(item)?;
    match container.shape() {
        Shape::Object => Ok(Elements::Object(container.pairs()?)),
        Shape::Array => {
            let count = container.count();
            let mut walk = container.walk();
            let mut items = with_capacity(count)?;
            for _ in 0..count {
                items.push(walk.next_item()?);
            }
            walk.finish()?;
            Ok(Elements::Array(items))
        }
        Shape::Scalar => Err(Damaged),
    }
}

/// Number of elements from the first on in which the two agree.
fn shared<'i, 'a: 'i>(
    left: impl Iterator<Item = &'i Item<'a>>,
    right: impl Iterator<Item = &'i Item<'a>>,
) -> usize {
    left.zip(right)
        .take_while(|(left, right)| is_same(left, right))
        .count()
}

fn is_same(left: &Item<'_>, right: &Item<'_>) -> bool {
    left.kind == right.kind && left.bytes == right.bytes
}

fn string(bytes: &[u8]) -> Item<'_> {
    Item {
        kind: STRING,
        bytes,
    }
}
