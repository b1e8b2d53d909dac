//! The first-level cache: states kept in one block of memory that all processes of a server share.
//!
//! The crate knows no PostgreSQL. It is given a block of zeroed memory, its [`Geometry`] and a way to
//! take locks ([`Locks`]); each process may map the block at its own address, so nothing in it is a
//! pointer: every link is the `u32` index of a chunk.
//!
//! # Memory
//!
//! ```text
//! header | stripes | domains | partitions | class buckets | buckets | next[] | chunks
//! ```
//!
//! One kind of memory holds everything that varies in number or size: chunks of 256 bytes, chained
//! through `next[]`. An entry is a chain (header, class, key, value, then a skip table where the chain
//! is long), its text form is a second chain, a class record is two chunks.
//!
//! Why not an allocator with size classes (PostgreSQL's DSA): its classes calcify. A cache that has
//! filled with 3 KB values cannot admit one of 11 KB before all the victims that happen to share one
//! 64 KB superblock are gone, and documents of agents grow with every step, so that is the normal
//! case. Equal chunks know no fragmentation, account exactly, work in 1 MB, and are freed by a
//! lock-free push, which a commit callback may do.
//!
//! # Who may change what
//!
//! | what | protected by |
//! | --- | --- |
//! | stripes, domains ([`Mark`]) | atomics; changed by committers only |
//! | free list and its `next[]` links | one atomic head with a tag; lock-free |
//! | chunks and `next[]` of an unlinked [`Block`] | its only owner |
//! | buckets, FIFO, hand, dirty list of a partition | lock *n* of the partition, exclusive to change |
//! | numbers of entries, clean and dirty, of a partition | lock *n*, exclusive to change; read without one to skip an
//! empty list |
//! | header, bytes and `next[]` of a linked entry | lock *n*: shared to read; written never, but for its links, text
//! form and domain generation, and for what [`L1::link`], [`L1::unlink`], [`L1::mark_clean`] and [`L1::set_parked`]
//! change of a dirty entry: its flags, `since`, `base`, version and transaction ids (all exclusive) |
//! | `visited` of an entry | atomic; set under the shared lock, cleared under the exclusive one |
//! | class buckets, names and free class records | lock `partitions`, the registry lock |
//! | gauges and counters of a class | atomics |
//! | number of dirty chunks in the header | atomic; raised before a dirty block exists or a text form is attached to
//! a dirty entry |
//!
//! # Order of locks
//!
//! At most one lock is held at any time: no partition lock under another, no registry lock under a
//! partition lock nor the reverse. What needs chunks takes them (and evicts for them) before it takes
//! its lock; what frees chunks may do so under a lock, since that takes none.
//!
//! [`L1::link`], [`L1::unlink`], [`L1::discard`], [`L1::mark_clean`] and [`L1::drop_dirty`] allocate nothing
//! and cannot fail: they are what a commit or abort callback calls. Those that publish come in any order;
//! the header of `publish` says how one that is late finds out.
//!
//! # Dirty entries
//!
//! An entry is dirty when the tables do not hold it yet ([`Dirty`], write-behind). It is the only copy of
//! an acknowledged change, so the cache never gives it up of its own accord:
//!
//! - It is not in the FIFO but in its partition's dirty list, which eviction does not follow. That goes
//!   for eviction by force, for a class's `max_entries` and for entries that have expired. An entry is in
//!   exactly one of the two lists, so they share its links.
//! - A change of its domain does not make it unreadable; [`L1::drop_dirty`] removes what a TRUNCATE has
//!   made void.
//! - [`L1::link_if_unchanged`], [`L1::remove_if`] and [`L1::unlink`] with [`Removes::Clean`] leave it.
//!
//! It goes when its key is linked again or removed by whoever has written something newer to the tables
//! ([`L1::link`], [`L1::unlink`]), with its database ([`L1::remove_database`]), or on request
//! ([`L1::drop_dirty`]). Linked again dirty, it hands on what the tables hold and since when they have
//! been behind.
//!
//! A worker finds dirty entries with [`L1::for_each_dirty`], writes them, and says so with
//! [`L1::mark_clean`] when its transaction commits. The serial tells whether the entry is still the one that
//! was written: it becomes clean, at the head of the FIFO, or else the newer one that has taken its place
//! stays dirty, based on what the tables hold now. An entry whose state was changed in the tables since it
//! was linked goes instead: what was written of it may not be what they hold.
//!
//! Chunks of dirty entries are counted, reserved blocks and text forms included. More than one chunk in
//! [`DIRTY_SHARE`] is refused, so that there is always something to evict for clean entries; the caller
//! then writes to the tables at once.
//!
//! # Damage
//!
//! A process that dies without warning makes PostgreSQL initialise shared memory anew, so half-done
//! work is never repaired here. Indices read from shared memory are checked against the number of
//! chunks, chains against the length their header gives, list walks against the number of entries:
//! damage shows as [`Lookup::Damaged`], never as undefined behaviour or an endless loop. A partition
//! whose lists are damaged is emptied, dirty entries included, and the chunks it held stay out of use
//! until a restart. These dirty entries are lost: links that cannot be trusted lead to nothing that may
//! be written to the tables. [`L1::take_lost`] tells how many.
//!
//! Whoever has found an entry damaged removes that one and no other ([`L1::remove_clean_entry`],
//! [`L1::remove_unsound`]): a sound one may have taken its place since. A dirty entry whose value alone is
//! damaged stays until something newer takes its place, because its version is still known.

mod arena;
mod cache;
mod chunked;
mod class;
mod damage;
mod dirty;
mod entry;
mod evict;
mod geometry;
mod locks;
mod mark;
mod partition;
mod publish;
mod read;
mod survey;
mod verify;

pub use cache::{Block, FillToken, L1, Memory, Refused};
pub use chunked::Chunked;
pub use class::{COUNTER_EVICTIONS, COUNTER_EXPIRATIONS, COUNTERS, ClassId};
#[cfg(feature = "damage")]
pub use damage::Part;
pub use dirty::{Cleaned, DIRTY_SHARE, Dirty};
pub use entry::{EntryInfo, Key, KeyId, MAX_CLASS, MAX_KEY, NewEntry};
pub use geometry::{CHUNK, DOMAINS, Geometry, MIN_MEMORY};
pub use locks::{Guard, Locks};
pub use mark::Mark;
pub use publish::{DirtyBefore, Noted, Removes};
pub use read::{Lookup, View, Want};
pub use verify::Report;
