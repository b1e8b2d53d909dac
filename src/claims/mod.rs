//! Claims of states of any class: who owns a state, and under which token it writes.
//!
//! # Contract
//!
//! What room `context` says of the claims of runs holds here, for states of any class and for names of which there is
//! no state. A run is claimed as a run: the functions of this room hand it on.
//!
//! **A claim** is a row of `state_lease`, which is written as the owner of `state_context`: whoever may change the
//! state may claim it. Where row-level security applies to somebody, only states that it shows can be claimed. The
//! row stays when the claim is released or the state is deleted, and goes with the tombstone unless somebody holds
//! it: a token is never given out twice, and each is greater than all before it of the same name.
//!
//! **A fence** makes a transaction write a state under a token from there on, whichever function changes the state
//! and whatever batch the change is staged in. The token is looked at when it is named, and again by each flush that
//! writes the state, under a lock that keeps others from claiming it until the transaction has ended (`FOR KEY
//! SHARE`: the token is part of a key, which a claim changes and a renewal does not). Between the two nothing is
//! locked, so that an owner who hangs keeps nobody from taking over once the lease is over; its commit fails with
//! `40001`. A transaction that names no token is not held up by a claim. On ERROR, and when a savepoint is rolled
//! back, the fence is what it was before.
//!
//! **Order of locks:** a flush locks the claim of a state before the head row of that state.

mod error;
mod functions;
mod rules;

pub use rules::Claims;
