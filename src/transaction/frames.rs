//! What each subtransaction would go back to.

use super::known::State;
use super::scope::Scope;
use pgrx::pg_sys;
use state_cache_memory::{Grow, OutOfMemory, room_in_map};
use std::collections::HashMap;

/// What was known of states when a subtransaction first changed it.
struct Frame {
    /// Nesting level of the subtransaction; the top transaction's is 1 and needs no frame.
    level: i32,
    /// `None`: nothing was known.
    states: HashMap<u128, Option<State>>,
    scope: Scope,
}

/// The frames of the running subtransactions, outermost first.
#[derive(Default)]
pub struct Frames(Vec<Frame>);

/// Nesting level of the running (sub)transaction.
fn level() -> i32 {
    // SAFETY: reads this backend's transaction state.
    unsafe { pg_sys::GetCurrentTransactionNestLevel() }
}

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

    /// The frame of the running subtransaction, made if need be; none for the top transaction.
    fn current(&mut self, scope: &Scope) -> Result<Option<&mut Frame>, OutOfMemory> {
        let level = level();
        if level <= 1 {
            return Ok(None);
        }
        if self.0.last().is_none_or(|frame| frame.level < level) {
            self.0.try_push(Frame {
                level,
                states: HashMap::new(),
                scope: scope.clone(),
            })?;
        }
        Ok(self.0.last_mut())
    }

    /// Before the running subtransaction commits: makes the room that [`Frames::commit`] needs.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub fn prepare_commit(&mut self) -> Result<(), OutOfMemory> {
        let level = level();
        if let [.., parent, frame] = &mut self.0[..]
            && frame.level == level
            && parent.level == level - 1
        {
            room_in_map(&mut parent.states, frame.states.len())?;
        }
        Ok(())
    }

    /// The running subtransaction commits: its parent would go back to what it would have gone back to,
    /// unless the parent's own memory is older. Allocates nothing.
    pub fn commit(&mut self) {
        let level = level();
        let Some(mut frame) = self.0.pop_if(|frame| frame.level == level) else {
            return;
        };
        match self.0.last_mut() {
            Some(parent) if parent.level == level - 1 => {
                for (id, state) in frame.states.drain() {
                    parent.states.entry(id).or_insert(state);
                }
            }
            _ if level > 2 => {
                frame.level = level - 1;
                // The place that the frame was just taken from.
                self.0.push(frame);
            }
            _ => {}
        }
    }

    /// The running subtransaction aborts: everything is as it was. Allocates nothing, since a state once
    /// known keeps its place. `left` counts the bytes of what is left to the worker.
    pub fn abort(
        &mut self,
        states: &mut HashMap<u128, State>,
        scope: &mut Scope,
        left: &mut usize,
    ) {
        let level = level();
        while let Some(frame) = self.0.pop_if(|frame| frame.level >= level) {
            for (id, saved) in frame.states {
                if let Some(state) = states.get_mut(&id) {
                    let before = state.left_bytes();
                    match saved {
                        Some(saved) => *state = saved,
                        None => state.clear(),
                    }
                    *left = (*left + state.left_bytes()).saturating_sub(before);
                }
            }
            *scope = frame.scope;
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}
