//! Recorded runs of agents, which the demos play.

pub mod change;
pub mod trace;
