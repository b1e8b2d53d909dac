//! The contract between whoever writes states into Redis and whoever reads them there: the feeder
//! (`clients/l2`) and the clients (`clients/rust`). The crate knows neither PostgreSQL nor Redis.
//!
//! # Keys
//!
//! | key | type | holds |
//! | --- | --- | --- |
//! | `<prefix><generation>:{<class>:<key>}` | string | one state: a value, a tombstone or a lease |
//! | `<prefix>{meta}` | hash | whose prefix it is, the generation, the cursor: the names in [`field`] |
//! | `<prefix>{meta}:alive` | string, expires | there as long as a feeder runs and has heard all |
//!
//! Braces make a hash tag, so a cluster may hold each state anywhere; one script touches one key only. `%`, `{` and
//! `}` in class and key, and `:` in the class, are written `%25`, `%7B`, `%7D`, `%3A`: no two states share a key.
//! A prefix has no braces.
//!
//! # Generations
//!
//! A generation is a positive number that is never used again (the clock in milliseconds, and more than the last).
//! What is missing in a generation is always right: a reader then asks PostgreSQL. So a new generation begins empty,
//! and is current at once; the feeder fills it afterwards. Values of older generations are neither read nor changed,
//! and expire: every value has a TTL. A feeder begins a new generation where it cannot say which states changed
//! (another epoch, a cursor that PostgreSQL refuses), where Redis lost its memory, and where a class left L2.
//!
//! # Promises of the feeder
//!
//! - **Values first, cursor after.** The cursor in the meta hash covers only changes whose values Redis has taken.
//!   It moves by [`script::MOVE_CURSOR`] from the one that the feeder began with, so that two feeders, or a Redis
//!   that was set back, never skip a change. Replaying is harmless, since [`script::WRITE`] never goes back.
//! - **Every change is written**, also of a state that Redis does not hold, if its class is in L2: the write takes
//!   away the leases of readers that have read the state before.
//! - `alive` is renewed only while messages are proven to arrive, and what was heard is written soon enough.
//!
//! # Duties of a reader
//!
//! - It reads the meta hash again at least every second, and reads values only of the current generation, of classes
//!   in [`field::CLASSES`], while `alive` is there, and if [`field::FORMAT`] is [`FORMAT`] and [`field::OWNER`] names
//!   its database ([`Owner`]).
//! - It takes a value only if [`Value::read`] does, and if its version is at least what the reader has seen or
//!   written of the state. What is not a value it drops with [`script::REPLACE`] and counts.
//! - A miss is filled only under a lease: `SET key <Value::lease> NX PX <a few seconds>`; read the primary after
//!   the answer; then [`script::REPLACE`] the lease by the value. Where the lease is gone, by a change, by time, or
//!   because somebody else holds one, nothing is written. A reader that was paused for a minute thus never puts back
//!   what has changed meanwhile. Where [`field::MODE`] is [`Mode::Delete`] there are no scripts, and readers fill
//!   nothing.
//! - A value that is older than what PostgreSQL has may be replaced at any time, exactly that one
//!   ([`script::REPLACE`]). Written by [`script::WRITE`], an answer that is old by now could take the place of a
//!   deletion that Redis no longer remembers.
//!
//! # Value
//!
//! All numbers are big-endian. The header has [`HEADER`] bytes:
//!
//! | bytes | what |
//! | --- | --- |
//! | 0..4 | [`MAGIC`] |
//! | 4 | [`FORMAT`] |
//! | 5 | [`Codec`] |
//! | 6 | [`Kind`] |
//! | 7 | 0 |
//! | 8..16 | version; 0 in a lease |
//! | 16..20 | bytes of the document before the codec |
//! | 20..24 | bytes that follow the header |
//! | 24..32 | xxh64, seed 0, of the hash tag, bytes 0..24, and what follows the header |
//!
//! What follows is the document as JSON text, through the codec; nothing in a tombstone; the token in a lease. The
//! hash tag is part of the checksum, so that a value under another state's key is not taken.

#![forbid(unsafe_code)]

mod codec;
mod key;
mod meta;
pub mod script;
mod ttl;
mod value;

pub use codec::{Codec, Compression, Undecoded};
pub use key::{BadPrefix, Prefix};
pub use meta::{Mode, Owner, field};
pub use ttl::time_left;
pub use value::{Content, FORMAT, HEADER, Header, Kind, MAGIC, TooLarge, Unread, Value};
