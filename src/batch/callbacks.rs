//! The transaction callbacks, registered once; see the contract in `batch`.

use super::{BATCH, commit, with};
use crate::cache::stats;
use crate::error::Result;
use crate::notify;
use pgrx::pg_sys::{self, SubXactEvent, XactEvent};

/// Registers the callbacks.
pub fn init() {
    // SAFETY: static callbacks, registered once per process (or once before the fork).
    unsafe {
        pg_sys::RegisterXactCallback(Some(transaction), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(subtransaction), std::ptr::null_mut());
    }
}

unsafe extern "C-unwind" fn transaction(event: XactEvent::Type, _: *mut std::ffi::c_void) {
    match event {
        XactEvent::XACT_EVENT_PRE_COMMIT => guarded(commit::prepare),
        XactEvent::XACT_EVENT_PRE_PREPARE => guarded(commit::check_may_prepare),
        XactEvent::XACT_EVENT_COMMIT => {
            crate::fault::stop_at!(Visible);
            end(|batch| {
                batch.settlements.commit();
                batch.publication.commit();
            });
            notify::commit();
        }
        XactEvent::XACT_EVENT_ABORT => {
            end(|batch| batch.publication.abort());
            notify::clear();
        }
        XactEvent::XACT_EVENT_PREPARE => {
            end(|_| ());
            notify::clear();
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
            with(|batch| batch.frames.prepare_commit());
            Ok(())
        }),
        SubXactEvent::SUBXACT_EVENT_COMMIT_SUB => {
            in_callback(|batch| {
                batch.frames.commit();
                batch.by_hand.subtransaction_committed();
                batch.settlements.subtransaction_committed();
            });
            notify::subtransaction_committed();
        }
        SubXactEvent::SUBXACT_EVENT_ABORT_SUB => {
            in_callback(|batch| {
                batch.frames.abort(&mut batch.states, &mut batch.scope);
                batch.by_hand.subtransaction_aborted();
                batch.settlements.subtransaction_aborted();
            });
            notify::subtransaction_aborted();
        }
        _ => {}
    }
}

/// Runs what may fail: its errors abort the transaction, its panics become errors.
fn guarded(f: impl FnOnce() -> Result<()>) {
    // SAFETY: called by the server, which expects an ERROR to leave by longjmp.
    unsafe {
        pg_sys::submodules::panic::pgrx_extern_c_guard(|| {
            if let Err(error) = f() {
                error.raise();
            }
        });
    }
}

/// Runs what cannot fail. The batch is never borrowed across a call into the server, so it is free here;
/// were it not, doing nothing would be the lesser evil than an error.
fn in_callback(f: impl FnOnce(&mut super::Batch)) {
    BATCH.with(|batch| {
        if let Ok(mut batch) = batch.try_borrow_mut() {
            f(&mut batch);
        }
    });
}

fn end(f: impl FnOnce(&mut super::Batch)) {
    in_callback(|batch| {
        f(batch);
        batch.reset();
    });
    stats::flush();
}
