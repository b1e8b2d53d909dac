//! The name of a state, for what outlives the statement that named the state.

/// A class's name and a key.
pub type StateName = (Box<[u8]>, Box<[u8]>);
