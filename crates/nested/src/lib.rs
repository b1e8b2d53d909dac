//! Values of a transaction, each kept at the nesting level of the subtransaction that made it.
//!
//! # Contract
//!
//! A subtransaction that aborts takes its values along, and one that commits hands them to its parent. PostgreSQL
//! tells of both in callbacks which must not fail, so neither allocates: [`Nested::prepare_commit`], called before
//! the subtransaction commits and while errors may still abort it, makes the room that [`Nested::commit`] needs.
//!
//! The caller says the level, which is that of the running (sub)transaction: [`TOP`] for the top transaction, one
//! more for each subtransaction within. Only the running one makes values, so the levels that are kept only rise.

#![forbid(unsafe_code)]

use state_cache_memory::{Grow, OutOfMemory};

/// The level of the top transaction.
pub const TOP: i32 = 1;

/// All values of one level.
pub trait Layer: Sized {
    /// Makes the room that [`Layer::take_in`] needs for the same layer.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    fn make_room_for(&mut self, child: &Self) -> Result<(), OutOfMemory>;

    /// Takes in the values of a subtransaction that has committed. Allocates nothing.
    fn take_in(&mut self, child: Self);
}

/// The layers of the (sub)transactions that have values, outermost first.
pub struct Nested<T>(Vec<(i32, T)>);

impl<T> Default for Nested<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Layer> Nested<T> {
    /// The layer of the running (sub)transaction, made if it has none.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub fn at(&mut self, level: i32, make: impl FnOnce() -> T) -> Result<&mut T, OutOfMemory> {
        if self.0.last().is_none_or(|(last, _)| *last < level) {
            self.0.try_push((level, make()))?;
        }
        match self.0.last_mut() {
            Some((_, layer)) => Ok(layer),
            None => Err(OutOfMemory {
                size: size_of::<(i32, T)>(),
            }),
        }
    }

    /// The layers, outermost first, each with its level.
    pub fn layers(&self) -> impl Iterator<Item = (i32, &T)> {
        self.0.iter().map(|(level, layer)| (*level, layer))
    }

    /// The layers, to be changed.
    pub fn layers_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut().map(|(_, layer)| layer)
    }

    /// Whether no (sub)transaction has values.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Before the subtransaction of this level commits: makes the room that [`Nested::commit`] needs.
    ///
    /// # Errors
    /// [`OutOfMemory`]; all values are as they were.
    pub fn prepare_commit(&mut self, level: i32) -> Result<(), OutOfMemory> {
        if let [.., (above, parent), (own, child)] = &mut self.0[..]
            && *own == level
            && *above == level - 1
        {
            parent.make_room_for(child)?;
        }
        Ok(())
    }

    /// The subtransaction of this level has committed: its values are its parent's. Allocates nothing.
    pub fn commit(&mut self, level: i32) {
        let Some((_, child)) = self.0.pop_if(|(own, _)| *own == level) else {
            return;
        };
        match self.0.last_mut() {
            Some((above, parent)) if *above == level - 1 => parent.take_in(child),
            // Into the place from which the layer has just been taken.
            _ => self.0.push((level - 1, child)),
        }
    }

    /// The subtransaction of this level has aborted: hands its values, and those of any within, to `undo`, innermost
    /// first. Allocates nothing.
    pub fn abort(&mut self, level: i32, mut undo: impl FnMut(T)) {
        while let Some((_, layer)) = self.0.pop_if(|(own, _)| *own >= level) {
            undo(layer);
        }
    }

    /// Discards all values. Frees memory and allocates none.
    pub fn clear(&mut self) {
        if !self.0.is_empty() {
            self.0 = Vec::new();
        }
    }
}

impl<V> Layer for Vec<V> {
    fn make_room_for(&mut self, child: &Self) -> Result<(), OutOfMemory> {
        self.try_room(child.len())
    }

    fn take_in(&mut self, child: Self) {
        self.extend(child);
    }
}
