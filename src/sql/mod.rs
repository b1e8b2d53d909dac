//! The door: every SQL function and every trigger of the core.
//!
//! A function here takes its arguments apart, asks the room that knows the answer, and makes rows of the answer. It
//! decides nothing itself, and nothing below this room calls it. Capabilities keep their own functions.

mod batch;
mod behind;
mod cache;
mod change;
mod changed_row;
mod read;
mod stats;
#[cfg(feature = "fault_injection")]
mod test_functions;
mod triggers;
mod workers;
