//! Derived classes.

mod life;
mod model;
mod stress;
