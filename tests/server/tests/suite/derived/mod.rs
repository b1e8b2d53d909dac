//! Derived classes.

mod life;
mod stress;
