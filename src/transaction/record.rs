//! What a flush takes out of the batch, and what it puts back.

use super::batch::Batch;
use super::known::{Bytes, Content, Flushed, OnConflict, Pending, Place, State, View};
use super::written::Written;
use crate::behind::Unwritten;
use crate::cache::found::Ground;
use crate::error::Result;
use crate::identity::Identity;
use crate::notify::Touched;
use crate::store::{Made, Storage};
use pgrx::pg_sys;
use std::rc::Rc;

impl Batch {
    /// Takes what is pending on a state, so that a flush from within the flush leaves it alone. With it goes the rule
    /// for conflicts: the one given, else that of the batch of the role that has staged it.
    pub fn take_pending(
        &mut self,
        id: u128,
        on_conflict: Option<Option<OnConflict>>,
    ) -> Result<Option<(State, Pending, Option<OnConflict>)>> {
        self.frames.save(id, self.states.get(&id), &self.scope)?;
        let Some(state) = self.states.get_mut(&id) else {
            return Ok(None);
        };
        let known = state.clone();
        let Some(mut pending) = state.pending.take() else {
            return Ok(None);
        };
        let of_role = || self.scope.explicit.rule_of(pending.stager.user);
        let on_conflict = on_conflict.unwrap_or_else(of_role);
        self.scope.forget_staged_before(id)?;
        if pending.overwrites(on_conflict) {
            // Whatever others have changed since goes with it.
            pending.touched = pending.touched.and(&Touched::document());
        }
        Ok(Some((known, pending, on_conflict)))
    }

    /// Remembers what was written.
    pub fn flushed(
        &mut self,
        id: u128,
        written: Written,
        stager: &Identity,
        touched: &Touched,
        locked: bool,
    ) -> Result<()> {
        self.frames.save(id, self.states.get(&id), &self.scope)?;
        let explicit = self.scope.explicit.any();
        let Some(known) = self.states.get_mut(&id) else {
            return Ok(());
        };
        let left_before = known.left_bytes();
        if !known.is_dirty() {
            known.beneath = None;
        }
        let mut place = Place::Tables { locked };
        let flushed = known.flushed.as_ref();
        let before = flushed.map_or(written.before(), |flushed| flushed.before);
        let mut all_touched = flushed.map_or_else(Touched::default, |it| it.touched.clone());
        if written.is_new() {
            all_touched = all_touched.and(touched);
        }
        if written.starts_anew() {
            all_touched = all_touched.and(&Touched::document());
        }
        let (version, expires_at, content) = match written {
            Written::Nothing { .. } if known.flushed.is_none() => {
                // Others may change the state from here on.
                if !known.is_dirty() {
                    known.forget_views();
                }
                return Ok(());
            }
            Written::Nothing { version } => {
                known.correct_view(version, None, None);
                return Ok(());
            }
            Written::Document {
                made,
                document,
                hash,
                expires_at,
                ..
            } => {
                let (version, storage) = (made.version, made.storage);
                known.correct_view(version, Some(&document), Some(expires_at));
                let content = Content::Document {
                    document,
                    hash,
                    storage,
                };
                (version, expires_at, content)
            }
            Written::Left {
                version,
                document,
                hash,
                expires_at,
                base,
                is_new,
                ..
            } => {
                // A row of this transaction's own is what the tables hold then.
                let version_beneath = known.flushed.as_ref().map_or(0, Flushed::number);
                known.correct_view(version, Some(&document), Some(expires_at));
                let (base, was_news, over_own_rows) =
                    match known.flushed.take().map(|flushed| flushed.place) {
                        Some(Place::Left {
                            base,
                            is_news,
                            over_own_rows,
                            ..
                        }) => (base, is_news, over_own_rows),
                        Some(Place::Tables { .. }) => (version_beneath, true, true),
                        None => (base, false, false),
                    };
                place = Place::Left {
                    stager: stager.clone(),
                    base,
                    // SAFETY: reads this backend's transaction state.
                    command: unsafe { pg_sys::GetCurrentCommandId(false) },
                    is_news: is_new || was_news,
                    over_own_rows,
                };
                let content = Content::Document {
                    document,
                    hash,
                    storage: Storage::UNKNOWN,
                };
                (version, expires_at, content)
            }
            Written::Deleted { version } => (version, i64::MAX, Content::Deleted),
            Written::Touched {
                version,
                expires_at,
            } => {
                known.correct_view(version, None, Some(expires_at));
                let before = known.flushed.take();
                (
                    version,
                    expires_at,
                    before.map_or(Content::Touched, |flushed| flushed.content),
                )
            }
        };
        if explicit {
            let ground = match &content {
                Content::Document { hash, .. } => Some(Ground {
                    number: version,
                    hash: *hash,
                }),
                Content::Deleted => Some(Ground::ABSENT),
                // The document is the one it was.
                Content::Touched | Content::Unkept => None,
            };
            // What the transaction itself writes is no conflict with what it has read, whichever role did either.
            for base in &mut known.bases {
                base.ground = ground.unwrap_or(base.ground);
            }
        }
        known.flushed = Some(Flushed {
            version,
            expires_at,
            content,
            place,
            before,
            touched: all_touched,
        });
        self.left = (self.left + known.left_bytes()).saturating_sub(left_before);
        Ok(())
    }

    /// A version that was only here or in L1 is a row of this transaction now.
    pub fn wrote_down(&mut self, id: u128, made: Made, unwritten: Unwritten) -> Result<()> {
        self.frames.save(id, self.states.get(&id), &self.scope)?;
        if let Some(state) = self.states.get_mut(&id) {
            self.left = self.left.saturating_sub(state.left_bytes());
            // Without a flush of this transaction's it is what there was before.
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
                    document: Rc::new(unwritten.document),
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
    /// What the transaction sees of the state turns from provisional into what was written, unless a
    /// trigger that fired during the write has staged the next change already.
    fn correct_view(&mut self, number: i64, written: Option<&Bytes>, expiry: Option<i64>) {
        if self.is_dirty() {
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
