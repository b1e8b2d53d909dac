//! What a flush takes out of the batch, and what it puts back.

use super::batch::Batch;
use super::effect::Effect;
use super::known::{Bytes, Content, Flushed, OnConflict, Pending, Place, State, View};
use crate::behind::Unwritten;
use crate::cache::found::Ground;
use crate::error::Result;
use crate::identity::Identity;
use crate::interval::Ttl;
use crate::notify::Touched;
use crate::store::{Made, Storage};
use pgrx::pg_sys;
use std::rc::Rc;

/// A staged change that a flush has taken out of the batch.
pub struct Taken {
    /// The hash under which the state is known.
    pub id: u128,
    /// The state, see [`State::without_views`].
    pub known: State,
    /// The change.
    pub pending: Pending,
    /// What a conflict leads to, where an explicit batch or the caller says so.
    pub on_conflict: Option<OnConflict>,
}

impl Taken {
    /// Whether the change is written over whatever others have made of the state.
    pub fn overwrites(&self) -> bool {
        self.pending.overwrites(self.on_conflict)
    }
}

/// By which rule for conflicts a change is flushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// By the rule of the explicit batch of the role that has staged it, if the role has one.
    OfStager,
    /// By this one.
    Given(Option<OnConflict>),
}

impl Batch {
    /// Takes what is pending on a state, so that a flush from within the flush leaves it alone.
    pub fn take(&mut self, id: u128, rule: Rule) -> Result<Option<Taken>> {
        self.frames.save(id, self.states.get(&id), &self.scope)?;
        let Some(state) = self.states.get_mut(&id) else {
            return Ok(None);
        };
        let Some(mut pending) = state.pending.take() else {
            return Ok(None);
        };
        let known = state.without_views();
        let on_conflict = match rule {
            Rule::OfStager => self.scope.explicit.rule_of(pending.stager.user),
            Rule::Given(on_conflict) => on_conflict,
        };
        self.scope.forget_staged_before(id)?;
        if pending.overwrites(on_conflict) {
            // Whatever others have changed since goes with it.
            pending.touched = pending.touched.and(&Touched::document());
        }
        Ok(Some(Taken {
            id,
            known,
            pending,
            on_conflict,
        }))
    }

    /// Notes what a flush has made of a state. `locked` says that the locks of a `behind` class are held.
    pub fn record(&mut self, taken: &Taken, effect: Effect, locked: bool) -> Result<()> {
        let id = taken.id;
        self.frames.save(id, self.states.get(&id), &self.scope)?;
        let Some(known) = self.states.get_mut(&id) else {
            return Ok(());
        };
        let before = known.deferred_bytes();
        if !known.is_staged() {
            known.beneath = None;
        }
        let Some(flushed) = known.flushed_as(effect, &taken.pending, locked) else {
            return Ok(());
        };
        if self.scope.explicit.any() {
            known.move_bases(&flushed);
        }
        known.flushed = Some(flushed);
        self.deferred_bytes = (self.deferred_bytes + known.deferred_bytes()).saturating_sub(before);
        Ok(())
    }

    /// Notes that a version which only the batch or L1 held is a row of this transaction now.
    pub fn record_written_back(
        &mut self,
        id: u128,
        made: Made,
        unwritten: Unwritten,
    ) -> Result<()> {
        self.frames.save(id, self.states.get(&id), &self.scope)?;
        if let Some(state) = self.states.get_mut(&id) {
            self.deferred_bytes = self.deferred_bytes.saturating_sub(state.deferred_bytes());
            // Where no flush of this transaction has come before, the version is the one that there was.
            let (before, touched) = match state.flushed.take() {
                Some(flushed) => (flushed.before, flushed.touched),
                None => (made.version, Touched::default()),
            };
            state.flushed = Some(Flushed {
                before,
                touched,
                version: made.version,
                expires_at: unwritten.expires_at,
                content: Content::Document {
                    document: Rc::new(unwritten.document.into()),
                    hash: unwritten.hash,
                    storage: made.storage,
                },
                place: Place::Tables { locked: true },
            });
        }
        Ok(())
    }
}

impl State {
    /// A flush has come to nothing.
    fn keep_as_it_is(&mut self, version: i64) {
        if self.flushed.is_some() {
            self.correct_view(version, None, None);
        } else if !self.is_staged() {
            // Others may change the state from here on.
            self.forget_views();
        }
    }

    /// What the transaction's flushes have made of the state once a flush has had this effect; `None` if it had none.
    fn flushed_as(&mut self, effect: Effect, pending: &Pending, locked: bool) -> Option<Flushed> {
        let before = self.flushed.as_ref();
        let before = before.map_or(effect.before(), |flushed| flushed.before);
        let touched = self.all_touched(&effect, &pending.touched);
        let in_tables = Place::Tables { locked };
        let (version, expires_at, content, place) = match effect {
            Effect::Document {
                made,
                document,
                hash,
                expires_at,
                ..
            } => {
                let (version, storage) = (made.version, made.storage);
                self.correct_view(version, Some(&document), Some(expires_at));
                let content = Content::Document {
                    document,
                    hash,
                    storage,
                };
                (version, expires_at, content, in_tables)
            }
            Effect::Deferred {
                version,
                document,
                hash,
                expires_at,
                ttl,
                base,
                is_new,
                ..
            } => {
                self.correct_view(version, Some(&document), Some(expires_at));
                let place = self.deferred_place(&pending.stager, ttl, base, is_new);
                let content = Content::Document {
                    document,
                    hash,
                    storage: Storage::UNKNOWN,
                };
                (version, expires_at, content, place)
            }
            Effect::Deleted { version } => (version, i64::MAX, Content::Deleted, in_tables),
            Effect::Touched {
                version,
                expires_at,
            } => {
                self.correct_view(version, None, Some(expires_at));
                let content = self.flushed.take().map(|flushed| flushed.content);
                let content = content.unwrap_or(Content::Touched);
                (version, expires_at, content, in_tables)
            }
            Effect::Nothing { version } => {
                self.keep_as_it_is(version);
                return None;
            }
        };
        Some(Flushed {
            version,
            expires_at,
            content,
            place,
            before,
            touched,
        })
    }

    /// What of the state the transaction's flushes have changed, with this one.
    fn all_touched(&self, effect: &Effect, touched: &Touched) -> Touched {
        let flushed = self.flushed.as_ref();
        let mut all = flushed.map_or_else(Touched::default, |flushed| flushed.touched.clone());
        if effect.is_new() {
            all = all.and(touched);
        }
        if effect.starts_anew() {
            all = all.and(&Touched::document());
        }
        all
    }

    /// The place of a version that is deferred over what the transaction's flushes have made so far. `base` is the
    /// version of the tables' row beneath it.
    fn deferred_place(&self, stager: &Identity, ttl: Ttl, base: i64, is_new: bool) -> Place {
        let (base, was_news, over_own_rows) = match &self.flushed {
            Some(Flushed {
                place:
                    Place::Deferred {
                        base,
                        is_news,
                        over_own_rows,
                        ..
                    },
                ..
            }) => (*base, *is_news, *over_own_rows),
            // A row of this transaction's own is what the tables hold then.
            Some(flushed) => (flushed.number(), true, true),
            None => (base, false, false),
        };
        Place::Deferred {
            stager: stager.clone(),
            ttl,
            base,
            // SAFETY: reads this backend's transaction state.
            command: unsafe { pg_sys::GetCurrentCommandId(false) },
            is_news: is_new || was_news,
            over_own_rows,
        }
    }

    /// What the transaction itself writes is no conflict with what its batches have read, whichever role did either.
    fn move_bases(&mut self, flushed: &Flushed) {
        let ground = match &flushed.content {
            Content::Document { hash, .. } => Ground {
                number: flushed.version,
                hash: *hash,
            },
            Content::Deleted => Ground::ABSENT,
            // The document is the one it was.
            Content::Touched | Content::Unkept => return,
        };
        for base in &mut self.bases {
            base.ground = ground;
        }
    }

    /// Turns the transaction's provisional view of the state into the version that was written, unless a
    /// trigger that fired during the write has staged the next change already.
    fn correct_view(&mut self, number: i64, written: Option<&Bytes>, expiry: Option<i64>) {
        if self.is_staged() {
            return;
        }
        if let Some(View::Document {
            document,
            version,
            expires_at,
        }) = self.newest_mut()
        {
            *version = Some(number);
            if let Some(written) = written {
                *document = Rc::clone(written);
            }
            *expires_at = expiry.unwrap_or(*expires_at);
        }
    }
}
