//! The SQL statements on L3, and nothing else.
//!
//! They run with the privileges of whoever is current. Every operator and function is named with its
//! schema, since a statement is parsed under the caller's `search_path`, and parsed again when that
//! has changed.

mod audit;
pub mod budgets;
mod changes;
mod class;
mod conflicts;
mod contexts;
mod decoded;
mod history;
mod integrity;
mod jobs;
mod keys;
mod leases;
mod logs;
mod own_write;
mod parameters;
mod payload;
mod pruning;
mod read;
mod rows;
mod runs;
mod second_look;
mod sources;
mod spi;
mod storage;
mod texts;
mod unreadable;
mod upkeep;
mod version;
mod write;

pub use audit::{Audited, add_audited};
pub use changes::{
    Head, count, delete_starts, head, heads, insert_start, newest_keys, raise_floor, raise_horizon,
    trace,
};
pub use class::{Setting, define as define_class, lock as lock_class_row};
pub use conflicts::{
    Conflict, NewConflict, Outgoing, abandon_conflicts, conflict, erase_beside_runs,
    is_left_beside_runs, open_conflict, resolve_conflict, send_out, supersede_conflict,
};
pub use contexts::{
    Claim, ClaimLock, Place, PlaceLock, base_version, children, claim, count_children,
    delete_children, delete_place, lock_claim, lock_place, put_place, release_claim, renew_claim,
    set_base, subtree, take_claim,
};
pub use decoded::{OneCall, forget as forget_decoded};
pub use history::{
    Contexts, Encoding, Kept, Label, Version as KeptVersion, built_upon, delete_snapshot,
    has_keyframe_above, kept, kept_in_walk, label, lock_if_free, prunable_states,
    rewrite_as_keyframe, versions,
};
pub use integrity::{LogEntry, LogId, classes, count_heads, keys, log, put_aside, put_first_aside};
pub use jobs::{
    CountedChange, LockedTask, TaskChange, TaskClaim, TaskPage, TaskRow, Transition, Whose,
    cancel_tasks, count_tasks, counted_changes, delete_left_tasks, delete_tasks, forget_left,
    hand_out_tasks, has_tasks, insert_tasks, jobs, jobs_left, jobs_of_tasks, jobs_with_lapsed,
    jobs_with_waiting, leave_tasks, lock_exhausted, lock_lapsed, lock_tasks, lock_waiting,
    next_lease, renew_leases, task_documents, task_page, task_values, update_tasks,
};
pub use keys::{
    Copied, ListedVersion, ListedWhat, Listing, copy_log, copy_state, erase_put_aside,
    erase_snapshots, has_log, keys_with_prefix, label_twice, labelled_version, list, live_keys,
};
pub use leases::{
    Lease, lease, lock_lease, make_room_for_lease, release_lease, renew_lease, take_lease,
};
pub use logs::{
    LogPlace, NewEntries, Which, append_to_log, erase_from_log, erase_log, read_log, replace_in_log,
};
pub use own_write::{is_by_hand, is_caller_by_hand};
pub use payload::{payload, payload_in_walk};
pub use read::{
    BELOW_1, Content, Stored, StoredDocument, SurvivingDamage, Target, lock, read, read_head,
    remembered_ttl, target,
};
pub use rows::StoredHead;
pub use runs::{
    Filter, ListPlace, ListedRun, Waiting, follow, follow_all, list_runs, listed_run,
    lock_waiting_run, put_run, run_head, waiting_runs,
};
pub use second_look::{Decided, newest_kept, put_right};
pub use sources::{
    drop_source, has_states, put_source, set_serve_stale, unwatch, watch, watch_triggers,
};
pub use spi::{Connection, Proceed, Statement};
pub use storage::{Base, Fault, Holder, Storage};
pub use unreadable::{put_aside_unread, version, versions_unread};
pub use upkeep::{
    Expiring, LimitedClass, Tombstone, drop_tombstone, drop_traces, earliest_expiry,
    limited_classes, lock_expired, save_protections, set_constraints_immediate, tombstones,
};
pub use version::{AUTO, Checkpoint, Made, NewVersion, Replaced};
pub use write::Writer;
