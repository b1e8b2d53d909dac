//! What each subtransaction would go back to.

use super::known::State;
use super::scope::Scope;
use super::states::KnownStates;
use crate::sys;
use state_cache_memory::{OutOfMemory, room_in_map};
use state_cache_nested::{Layer, Nested, TOP};
use std::collections::HashMap;

/// What was known of states when a subtransaction first changed it.
struct Frame {
    /// `None`: nothing was known.
    states: HashMap<u128, Option<State>>,
    scope: Scope,
}

impl Layer for Frame {
    fn make_room_for(&mut self, child: &Self) -> Result<(), OutOfMemory> {
        room_in_map(&mut self.states, child.states.len())
    }

    /// What the parent would go back to is older than what its subtransaction would have gone back to.
    fn take_in(&mut self, child: Self) {
        for (id, state) in child.states {
            self.states.entry(id).or_insert(state);
        }
    }
}

/// The frames of the running subtransactions. The top transaction goes back to nothing and has none.
#[derive(Default)]
pub struct Frames(Nested<Frame>);

impl Frames {
    /// Called before what is known of a state changes.
    ///
    /// # Errors
    /// [`OutOfMemory`]; nothing is changed then.
    pub fn save(
        &mut self,
        id: u128,
        state: Option<&State>,
        scope: &Scope,
    ) -> Result<(), OutOfMemory> {
        if let Some(frame) = self.current(scope)? {
            room_in_map(&mut frame.states, 1)?;
            frame.states.entry(id).or_insert_with(|| state.cloned());
        }
        Ok(())
    }

    /// Called before the scope changes.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub fn save_scope(&mut self, scope: &Scope) -> Result<(), OutOfMemory> {
        self.current(scope).map(drop)
    }

    /// The frame of the running subtransaction, made if it has none; none for the top transaction.
    fn current(&mut self, scope: &Scope) -> Result<Option<&mut Frame>, OutOfMemory> {
        match sys::nest_level() {
            ..=TOP => Ok(None),
            level => {
                let make = || Frame {
                    states: HashMap::new(),
                    scope: scope.clone(),
                };
                self.0.at(level, make).map(Some)
            }
        }
    }

    /// Before the running subtransaction commits: makes the room that [`Frames::commit`] needs.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub fn prepare_commit(&mut self) -> Result<(), OutOfMemory> {
        self.0.prepare_commit(sys::nest_level())
    }

    /// The running subtransaction commits: its frame is its parent's. Allocates nothing.
    pub fn commit(&mut self) {
        match sys::nest_level() {
            // Its parent is the top transaction.
            level if level <= TOP + 1 => self.0.clear(),
            level => self.0.commit(level),
        }
    }

    /// The running subtransaction aborts: everything is as it was. Allocates nothing, since a state once
    /// known keeps its place. `deferred` counts the bytes of what is deferred.
    pub fn abort(&mut self, states: &mut KnownStates, scope: &mut Scope, deferred: &mut usize) {
        self.0.abort(sys::nest_level(), |frame| {
            for (id, saved) in frame.states {
                if let Some(state) = states.get_mut(&id) {
                    let before = state.deferred_bytes();
                    match saved {
                        Some(saved) => *state = saved,
                        None => state.clear(),
                    }
                    *deferred = (*deferred + state.deferred_bytes()).saturating_sub(before);
                }
            }
            *scope = frame.scope;
        });
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}
