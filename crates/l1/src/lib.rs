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
//! | buckets, FIFO, hand, entry count of a partition | lock *n* of the partition, exclusive to change |
//! | header, bytes and `next[]` of a linked entry | lock *n*: shared to read; written never, but for its links, text form and domain generation (exclusive) |
//! | `visited` of an entry | atomic; set under the shared lock, cleared under the exclusive one |
//! | class buckets, names and free class records | lock `partitions`, the registry lock |
//! | gauges and counters of a class | atomics |
//!
//! # Order of locks
//!
//! At most one lock is held at any time: no partition lock under another, no registry lock under a
//! partition lock nor the reverse. What needs chunks takes them (and evicts for them) before it takes
//! its lock; what frees chunks may do so under a lock, since that takes none.
//!
//! [`L1::link`], [`L1::remove`] and [`L1::discard`] allocate nothing and cannot fail: they are what a
//! commit or abort callback calls.
//!
//! # Damage
//!
//! A process that dies without warning makes PostgreSQL initialise shared memory anew, so half-done
//! work is never repaired here. Indices read from shared memory are checked against the number of
//! chunks, chains against the length their header gives, list walks against the number of entries:
//! damage shows as [`Lookup::Damaged`], never as undefined behaviour or an endless loop. A partition
//! whose lists are damaged is emptied, and the chunks it held stay out of use until a restart.

mod arena;
mod cache;
mod chunked;
mod class;
mod entry;
mod evict;
mod geometry;
mod locks;
mod mark;
mod partition;
mod read;
mod survey;
mod verify;

pub use cache::{Block, FillToken, L1, Memory, Refused};
pub use chunked::Chunked;
pub use class::{COUNTER_EVICTIONS, COUNTER_EXPIRATIONS, COUNTERS, ClassId};
pub use entry::{EntryInfo, Key, KeyId, MAX_CLASS, MAX_KEY, NewEntry};
pub use geometry::{CHUNK, DOMAINS, Geometry, MIN_MEMORY};
pub use locks::Locks;
pub use mark::Mark;
pub use read::{Lookup, View, Want};
pub use verify::Report;
