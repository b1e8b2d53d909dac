//! The transaction callbacks, registered once; see the contract in `transaction`.

use super::batch::{BATCH, Batch, with};
use super::capability::{self, Capability};
use super::{commit, definitions};
use crate::callback::shielded;
use crate::counters;
use crate::error::Result;
use crate::notify;
use crate::{behind, cache, memory, store};
use pgrx::pg_sys::{self, SubXactEvent, XactEvent};

/// Called when the library is loaded: registers the callbacks, and what the rooms above add to a transaction.
pub fn init(capabilities: &'static [&'static dyn Capability]) {
    capability::register(capabilities);
    definitions::init();
    // SAFETY: static callbacks, registered once per process (or once before the fork).
    unsafe {
        pg_sys::RegisterXactCallback(Some(transaction), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(subtransaction), std::ptr::null_mut());
    }
}

unsafe extern "C-unwind" fn transaction(event: XactEvent::Type, _: *mut std::ffi::c_void) {
    match event {
        XactEvent::XACT_EVENT_PRE_COMMIT => {
            guarded(commit::prepare);
            definitions::before_commit();
        }
        XactEvent::XACT_EVENT_PRE_PREPARE => guarded(commit::check_may_prepare),
        XactEvent::XACT_EVENT_COMMIT => {
            end(|batch| {
                crate::fault::stop_at!(Visible);
                for entry in batch.written_back.layers().flat_map(|(_, all)| all) {
                    entry.mark_clean();
                }
                batch.publication.publish();
            });
            shielded(notify::commit);
        }
        XactEvent::XACT_EVENT_ABORT => {
            end(|batch| batch.publication.withdraw());
            shielded(notify::clear);
        }
        XactEvent::XACT_EVENT_PREPARE => {
            end(|_| ());
            shielded(notify::clear);
        }
        _ => {}
    }
}

unsafe extern "C-unwind" fn subtransaction(
    event: SubXactEvent::Type,
    _: pg_sys::SubTransactionId,
    _: pg_sys::SubTransactionId,
    _: *mut std::ffi::c_void,
) {
    match event {
        SubXactEvent::SUBXACT_EVENT_PRE_COMMIT_SUB => guarded(|| {
            with(Batch::subtransaction_commits)?;
            notify::subtransaction_commits()
        }),
        SubXactEvent::SUBXACT_EVENT_COMMIT_SUB => {
            shielded(|| {
                BATCH.with(|kept| kept.reach(Batch::subtransaction_committed));
                notify::subtransaction_committed();
            });
        }
        SubXactEvent::SUBXACT_EVENT_ABORT_SUB => {
            shielded(|| {
                BATCH.with(|kept| kept.reach(Batch::subtransaction_aborted));
                notify::subtransaction_aborted();
            });
        }
        _ => {}
    }
}

/// Runs something that may fail: its errors abort the transaction, its panics become errors. A transaction with
/// nothing to do with us is not even asked for the reserve of memory.
fn guarded(f: impl FnOnce() -> Result<()>) {
    // SAFETY: called by the server, which expects an ERROR to leave by longjmp.
    unsafe {
        pg_sys::submodules::panic::pgrx_extern_c_guard(|| {
            if is_ours()
                && let Err(error) = memory::guarded(f)
            {
                error.raise();
            }
        });
    }
}

/// Whether the transaction has anything to do with us.
fn is_ours() -> bool {
    let is_known = with(|batch| {
        let changed = !batch.states.is_empty() || batch.by_hand.any() || batch.dependents.any();
        changed
            || batch.holds_claim
            || !batch.written_back.is_empty()
            || definitions::may_have_to_be_told()
    });
    is_known || notify::has_requests()
}

/// The last look at the batch of this transaction. Should the closure panic, the marks are lowered and the
/// states that were not published are evicted: others then read them from L3.
fn end(f: impl FnOnce(&mut Batch)) {
    if !shielded(|| last_look(f)) {
        shielded(|| last_look(|batch| batch.publication.give_up()));
    }
    shielded(counters::flush);
}

fn last_look(f: impl FnOnce(&mut Batch)) {
    BATCH.with(|kept| {
        kept.reach(|batch| {
            f(batch);
            batch.reset();
            definitions::forget();
            behind::forget_locks();
            cache::forget_read();
            store::forget_decoded();
        });
    });
}
