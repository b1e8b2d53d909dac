//! Budgets: the arithmetic and the rules, without a server.
//!
//! - [`Amount`]: money as a whole number of billionths. Nothing here rounds but a mean ([`Amount::mean`]).
//! - [`Account`]: what one scope (a budget, or an agent within one) may spend, has spent and holds, in one shard or
//!   in several; when a hold is granted, and how allotments are made.
//! - [`Period`]: when the counters of a budget begin anew.
//! - [`price`]: when the price of an agent is learned from its costs, and accuracy.
//! - [`project`]: what planned work will cost; [`advise`]: what somebody should look at.
//! - [`shapes`]: what callers read as JSON.
//!
//! The server keeps the numbers in rows and locks these in an order (`src/budgets`); what is decided about them is
//! decided here.

mod account;
pub mod advise;
mod amount;
mod period;
pub mod price;
pub mod project;
pub mod shapes;

pub use account::{Account, Level, Refusal, Share, allot, levels_crossed, quiet};
pub use amount::{Amount, AmountError, DECIMALS};
pub use period::{Period, PeriodError};
