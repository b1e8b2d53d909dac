//! What a transaction tells when it commits: numbers for its messages, records for the ring.

use super::held;
use super::message::Stamp;
use super::messages::{self, Message};
use super::prepare::Prepared;
use super::requests;
use crate::callback::Kept;
use crate::catalog::Catalog;
use crate::error::Result;
use crate::settings::{self, Notify};
use crate::shared::{self, Database};
use crate::sys;
use pgrx::pg_sys;

/// What is left to do when the commit is visible.
#[derive(Default)]
struct Outbox {
    database: Option<&'static Database>,
    /// The last message of this transaction.
    stamp: Option<Stamp>,
    /// Changes for the worker, as the ring holds them.
    records: Vec<u8>,
    /// [`tell_late`] has told.
    told_late: bool,
}

thread_local! {
    static OUTBOX: Kept<Outbox> = Kept::default();
}

/// The outbox, for a moment: it is never borrowed across a call into the server.
fn with<T>(f: impl FnOnce(&mut Outbox) -> T) -> T {
    OUTBOX.with(|kept| kept.with(f))
}

impl Prepared {
    /// Sends the messages, in their order, and leaves the rest to [`commit`]. The last thing that may fail
    /// before the commit record.
    pub fn send(self) {
        self.send_in(Epoch::Present);
    }

    pub(super) fn send_in(self, epoch: Epoch) {
        let stamp = send(self.messages, epoch);
        with(|outbox| {
            outbox.database = shared::database();
            outbox.stamp = stamp.or(outbox.stamp);
            outbox.records = self.records;
        });
    }
}

/// Which run of numbers a message belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Epoch {
    /// The one that the last message belongs to.
    Present,
    /// One that begins with this message.
    New,
}

/// Gives messages the next numbers and queues them; the last number.
fn send(messages: Vec<Message>, epoch: Epoch) -> Option<Stamp> {
    if messages.is_empty() {
        return None;
    }
    let Some(database) = shared::database() else {
        shared::warn_if_no_place();
        for message in messages {
            message.send(None);
        }
        return None;
    };
    // SAFETY: we are inside a transaction, which releases the lock when it has ended. It is the lock that
    // NOTIFY itself takes before the commit record (PreCommit_Notify).
    unsafe {
        pg_sys::LockSharedObject(
            pg_sys::DatabaseRelationId,
            pg_sys::InvalidOid,
            0,
            pg_sys::AccessExclusiveLock as i32,
        );
    }
    let mut last = with(|outbox| outbox.stamp).unwrap_or_else(|| {
        let (epoch, seq) = database.last_message();
        Stamp { epoch, seq }
    });
    if epoch == Epoch::New {
        last = Stamp {
            // Also if the clock was set back.
            epoch: (sys::now() as u64).max(last.epoch + 1),
            seq: 0,
        };
    }
    for message in messages {
        last.seq += 1;
        message.send(Some(last));
    }
    crate::fault::stop_at!(Told);
    Some(last)
}

/// A change that comes after the transaction's own were told: subscribers are told to drop everything.
pub fn tell_late(catalog: &Catalog) -> Result<()> {
    let told = with(|outbox| std::mem::replace(&mut outbox.told_late, true));
    if told || settings::notify() == Notify::Off {
        return Ok(());
    }
    let stamp = send(messages::everything(catalog)?, Epoch::Present);
    with(|outbox| {
        outbox.database = shared::database();
        outbox.stamp = stamp.or(outbox.stamp);
    });
    Ok(())
}

/// The commit is visible to others, in L1 too: stores the number of its last message and hands its changes to
/// the worker. Allocates nothing and cannot fail.
pub fn commit() {
    OUTBOX.with(|kept| {
        kept.reach(|outbox| {
            let Some(database) = outbox.database else {
                return;
            };
            if let Some(Stamp { epoch, seq }) = outbox.stamp {
                database.set_last_message(epoch, seq);
            }
            if let (false, Some(ring)) = (outbox.records.is_empty(), shared::ring()) {
                let first = ring.append(&outbox.records, |at| database.add_untold(at));
                // Under load the worker comes by itself.
                if first || !database.has_worker() {
                    database.wake_worker();
                }
            }
        })
    });
    clear();
}

/// Forgets the transaction, and lets the worker go. Frees memory and allocates none.
pub fn clear() {
    requests::clear();
    held::release();
    OUTBOX.with(|kept| kept.reach(|outbox| *outbox = Outbox::default()));
}
