//! The states that a transaction knows, and which of them a flush has to look at.
//!
//! A transaction may know a million states of which its next flush is about a few thousand. Those are *unsettled*: a
//! change of them is staged, or the batch holds a document of theirs. A state becomes unsettled when somebody changes
//! what is known of it, and [`KnownStates::settle`] settles it once the tables alone tell what the transaction sees
//! of it. Flushes look at unsettled states only, so that all flushes of a transaction together cost what it changes.
//!
//! # Contract
//!
//! - A state once known keeps its place until the transaction ends. Only its value changes.
//! - Whoever gets a state to change it has made it unsettled. That allocates nothing, so that an abort callback can
//!   do it ([`KnownStates::get_mut`]): the list of unsettled states has room for all that are known, and none is in
//!   it twice.

use super::known::State;
use crate::error::Result;
use state_cache_memory::{Grow, room_in_map};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// The states, by the hash of class and key.
#[derive(Default)]
pub struct KnownStates {
    known: HashMap<u128, Place, BuildHasherDefault<ById>>,
    /// Those that are not settled. It has room for all that are known.
    unsettled: Vec<u128>,
}

struct Place {
    state: State,
    /// Whether it is in the list.
    is_unsettled: bool,
}

impl KnownStates {
    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// What is known of a state.
    pub fn get(&self, id: &u128) -> Option<&State> {
        self.known.get(id).map(|place| &place.state)
    }

    /// The same, to be changed. Allocates nothing.
    pub fn get_mut(&mut self, id: &u128) -> Option<&mut State> {
        let place = self.known.get_mut(id)?;
        if !std::mem::replace(&mut place.is_unsettled, true) {
            self.unsettled.push(*id);
        }
        Some(&mut place.state)
    }

    /// The same of a state that may not be known yet.
    ///
    /// # Errors
    /// `53200`.
    pub fn get_or_insert_with(
        &mut self,
        id: u128,
        new: impl FnOnce() -> State,
    ) -> Result<&mut State> {
        room_in_map(&mut self.known, 1)?;
        self.unsettled
            .try_room(self.known.len() + 1 - self.unsettled.len())?;
        let place = self.known.entry(id).or_insert_with(|| Place {
            state: new(),
            is_unsettled: false,
        });
        if !std::mem::replace(&mut place.is_unsettled, true) {
            self.unsettled.push(id);
        }
        Ok(&mut place.state)
    }

    /// All of them.
    pub fn values(&self) -> impl Iterator<Item = &State> {
        self.known.values().map(|place| &place.state)
    }

    /// The same, by their ids.
    pub fn iter(&self) -> impl Iterator<Item = (&u128, &State)> {
        self.known.iter().map(|(id, place)| (id, &place.state))
    }

    /// Those that are not settled.
    pub fn unsettled(&self) -> impl Iterator<Item = (&u128, &State)> {
        let known = |id| Some((id, &self.known.get(id)?.state));
        self.unsettled.iter().filter_map(known)
    }

    /// Calls `change` for each that is not settled; the first error ends that.
    pub fn try_each_unsettled(
        &mut self,
        mut change: impl FnMut(u128, &mut State) -> Result<()>,
    ) -> Result<()> {
        for id in &self.unsettled {
            if let Some(place) = self.known.get_mut(id) {
                change(*id, &mut place.state)?;
            }
        }
        Ok(())
    }

    /// Calls `change` for every state, of which none is settled then; the first error ends that.
    pub fn try_each(
        &mut self,
        mut change: impl FnMut(u128, &mut State) -> Result<()>,
    ) -> Result<()> {
        for (id, place) in &mut self.known {
            if !std::mem::replace(&mut place.is_unsettled, true) {
                self.unsettled.push(*id);
            }
            change(*id, &mut place.state)?;
        }
        Ok(())
    }

    /// Calls `change` for each that is not settled, and settles those of which nothing is held then; nothing is
    /// changed after the first error.
    ///
    /// # Errors
    /// That of `change`.
    pub fn settle(&mut self, mut change: impl FnMut(u128, &mut State) -> Result<()>) -> Result<()> {
        let (known, mut outcome) = (&mut self.known, Ok(()));
        self.unsettled.retain(|id| match known.get_mut(id) {
            Some(place) => {
                if outcome.is_ok() {
                    outcome = change(*id, &mut place.state);
                }
                place.is_unsettled = !place.state.is_settled();
                place.is_unsettled
            }
            None => false,
        });
        outcome
    }
}

/// The hash of a state's name is the hash that the map wants.
#[derive(Default)]
struct ById(u64);

impl Hasher for ById {
    fn write(&mut self, bytes: &[u8]) {
        // Only ids are hashed here, by `write_u128`.
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, id: u128) {
        self.0 = id as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
