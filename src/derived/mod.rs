//! Derived classes: documents that a query computes, kept in L1 and never stored.
//!
//! # Contract
//!
//! `state_source` says for a class by which query the document of a key is computed. A read answers what that query
//! gives under the active snapshot S for the role that asks, own changes included. L1 may answer instead where that
//! makes no difference; everything else here is about that "where".
//!
//! # Words
//!
//! - **Source**: the query. It runs as the role that reads, with the settings that its answer may depend on fixed
//!   ([`settings`]): so the answer depends on tables, definitions, the key and, at most, the role.
//! - **Watch**: a trigger on a relation, which turns a changed row into keys of a class. There is no other record of
//!   a watch: what the relation's triggers say is so, after a dump, a rename or DISABLE TRIGGER too.
//! - **Tag**: what a document depends on. There are three: its own (class, key), all of its class, and the
//!   definitions of its database. Each has a mark (`state_cache_l1::Mark`): a commit raises the mark before its
//!   commit record, and advances its generation and lowers it after it has become visible.
//! - **Exact** is a class whose query reads nothing but tables that are watched for it, through functions whose
//!   answers depend on their arguments ([`walk`]). Of any other class L1 may answer for `cache_ttl` only, and what it
//!   answers is as old as that: it must have one.
//!
//! # Who raises which mark
//!
//! - The stripe of (class, key): a change of a watched row, once for each key of OLD and of NEW. Raised before the
//!   commit record, with the marks of states; advanced and lowered by the COMMIT callback, which also takes the entry
//!   out.
//! - The mark of the class: TRUNCATE, a watch without keys, a key that is NULL, an expression that does not compile,
//!   more than 1,000 keys in one transaction. Raised, advanced and lowered likewise.
//! - The mark of the definitions of the database: DDL, GRANT, the definition of a class, a TRUNCATE of a partition
//!   ([`ddl`]). What all databases share (roles), and whatever is not known to concern one database only, raises the
//!   marks of all. Raised likewise, and all of them for COMMIT PREPARED before the statement; advanced and lowered
//!   when the locks are released.
//!
//! The stripe is the one of a name that no state has (`shared::derived_key`). What is advanced need not be told per
//! entry: an entry keeps a digest of the generations of its class and of the definitions, and one with another digest
//! than that of now counts as none.
//!
//! **Why the definitions' mark stays up until the locks are released.** Other backends learn of DDL by invalidation
//! messages. These are sent after the COMMIT callbacks and before the locks go. A backend that found the mark down
//! before they are sent would plan with old definitions and keep the answer under the new generation. So a backend
//! first reads a quiet generation, then takes in all messages, and then looks at definitions ([`definition`]); what
//! it knows it keeps together with that generation.
//!
//! # Fill
//!
//! 1. Read the three generations; all marks must be quiet.
//! 2. Take a snapshot F.
//! 3. Evaluate under F. The transaction has no transaction id, so F holds nothing of its own.
//! 4. Link the entry, under the lock of its partition, if the stripe is still quiet and of the same generation, and
//!    nobody has had entries of the class evicted since step 1. The entry holds the digest of the two other
//!    generations and the moment of F.
//!
//! The answer to the reader is that of F if F sees what S sees, else the query runs again under S.
//!
//! # Hit
//!
//! Under a snapshot S, which was taken before:
//! 1. Read the three generations; all marks must be quiet.
//! 2. Copy the entry. Its digest must be that of the generations just read.
//! 3. S must not have been taken before F ([`crate::cache::visibility::Moment`]).
//!
//! **Moments.** Snapshots are taken one after the other, each sees all that an earlier one sees, and two can be put
//! in order by what is in them: `xmax` is one more than the highest id that has ended, so it never falls. Where two
//! have the same `xmax`, nobody below it has begun in between, only ended, so the one with fewer transactions in
//! progress is the later one, and with as many they are the same. So a moment is two numbers, and no list need be
//! kept. A transaction in its own snapshot is not among those in progress; its id is added. While a transaction is
//! prepared it may be listed twice; F counts each once, so at worst S looks earlier than it is. Transactions
//! elsewhere that last long are in both counts.
//!
//! **States.** What a source reads through our own functions is noted while it runs (`cache::noting`), each state
//! with the generations that its stripe and the database had before; the notes stand beside the entry, which names
//! them by their hash. A hit needs all of them quiet and unchanged, and so does the argument below, with the states'
//! stripes in place of the document's own. Where it cannot be made sure that the newest version was found, nothing is
//! kept. Who has changed states, has an explicit batch, or is at REPEATABLE READ runs such a source itself. A
//! document is kept until the first of its states expires.
//!
//! **Documents within documents.** A document that a source reads is noted after it was read, with the generations
//! that its own read went by (step 1 of its hit or fill, which comes after F of the outer fill), its stripe's and its
//! class's; that of the definitions the outer document has itself. What was noted of the inner one is noted of the
//! outer one too. That is right if the inner answer is what the active snapshot, F of the outer fill, gives, and
//! nothing newer was there when those generations were read:
//! - It was a hit: its entry is what F gives (step 3: F was not taken before the entry's), and as of step 1 nothing
//!   had changed since.
//! - It was filled, under a snapshot taken after step 1 that sees the same as F.
//!
//! In all other cases (inner documents that go by age, that a transaction may not be answered by, that were filled
//! under a snapshot which sees more than F) nothing is noted, and the outer document is not kept. Suppose the inner
//! one is another one for S than for F: then T, which changed one of its tags, advanced that tag before the outer
//! hit, and after the generations were read, or its change would have been in the answer, which no case above allows;
//! so the generation is not the one noted.
//!
//! A hit on the outer document asks for each class within whether the caller may be answered from L1 there
//! ([`read::Reader`], `bar`): it may lack SELECT on what only the inner source reads. A document that reads itself,
//! through others too, is refused while it is computed.
//!
//! # Why a hit is what the query would give under S
//!
//! Suppose the two differ. Then a transaction T that S sees and F does not has changed a row that is watched, or a
//! definition (S sees all that F sees). T raised its mark before S could see it, thus before step 1 of the hit; that
//! step found the mark quiet, so T had lowered it, and advanced it before that.
//! - T advanced a class or the definitions: the generations read are those after T. The entry's are those before F,
//!   and T became visible after F, so they are older, and the digest is another one.
//! - T advanced the stripe, and took the entry of the key out under the lock of the partition. If the entry was
//!   linked after that, step 4 of the fill found another generation than step 1, or the mark raised, and did not link
//!   it. If it was linked before, it is gone. In both cases step 2 of the hit does not find it.
//!
//! What another backend can do between any two steps is commit (above), evict (a miss), or link an entry of its own
//! (which the argument is about all the same).
//!
//! # Where L1 is not asked
//!
//! The query itself answers, under S, and nothing is kept:
//! - in a transaction that has changed a watched row, from the start of that statement on, or a definition. What a
//!   subtransaction changed and rolled back counts too: that costs time only;
//! - at SERIALIZABLE, in recovery, in a parallel query, under a snapshot that does not go by transactions, with L1
//!   off;
//! - while a mark is raised, and under a snapshot older than F;
//! - if row-level security is switched on for a relation that the query reads, whoever asks;
//! - for a role that lacks SELECT on such a relation, or EXECUTE on a function: then the query says so. What a role
//!   may do is remembered with the definitions' generation, since GRANT and REVOKE are DDL;
//! - for a key that is not written as the type writes it to which the query casts it (`07` for a bigint): a watch
//!   would name it differently;
//! - if the transaction has an id and a relation has partitions or children, whose statements no trigger announces.
//!
//! # Evictions by request
//!
//! `state_invalidate` and `state_cache_clear` promise that what the tables held before the call is not in L1 after
//! it; for a class that goes by age nothing else would see to that. Each class counts such calls
//! (`Tag::evictions`). The call counts first, and then goes through the partitions. A fill reads the number in step
//! 1, before F, and again in step 4 under the lock of the partition: either it finds another number, and does not
//! link; or the call has not counted yet, comes to the partition later, and finds the entry. Fills of other keys of
//! the class are refused too; that costs a computation.
//!
//! # Who was away
//!
//! `state_changes` reads what the last commits have concerned in a ring in shared memory (`shared::Recent`), which
//! they write before their commit record. What the ring has lost, the marks still know by class; a server that was
//! started since knows nothing, and tells all classes. COMMIT PREPARED tells all of them, too.
//!
//! # Errors, subtransactions, crashes
//!
//! An ERROR in the source reaches the caller, with class and key in its context; nothing is kept. A fill that fails
//! half-way has linked nothing. What a transaction has changed is kept by the level of its subtransactions, as for
//! states changed by hand. Between commit record and callbacks nothing fails, waits or allocates. A crash empties
//! shared memory, marks included.
//!
//! # What is taken at its word
//!
//! That an expression of a watch names all keys whose documents a row is part of, and that functions are what they
//! are declared to be. Changes of the server's catalogs by hand are not seen.

mod audit;
mod auditor;
mod ddl;
mod definition;
mod error;
mod flight;
mod functions;
mod keys;
mod read;
mod relations;
mod settings;
mod unattended;
mod walk;
mod watch;

use crate::cache::StateRef;
use crate::error::{Result, text};

pub use audit::warm_unattended;
pub use auditor::Auditor;
pub use error::DerivedError;
pub use functions::{NewSource, define};
pub use read::read;
pub use relations::has_row_security;

/// Called when the library is loaded: watches for what changes definitions.
pub fn init() {
    ddl::init();
    keys::init();
}

/// `55000` for a state of a derived class: its documents have no versions.
pub fn check_has_versions(state: &StateRef<'_>) -> Result<()> {
    match state.class.source {
        None => Ok(()),
        Some(_) => Err(DerivedError::NoVersions {
            class: text(&state.class.name),
        }
        .into()),
    }
}
