//! The source of the extension as the tests in `tests/suite` read it: modules, and what each imports of which.
//!
//! What goes wrong here is a failed test, so everything panics.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod circles;
mod floors;
mod imports;
mod modules;

pub use circles::{Edge, circles};
pub use floors::{FLOORS, FromTo, floor, violations};
pub use imports::Import;
pub use modules::Source;

use std::path::{Path, PathBuf};

/// The root of the project.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap().to_owned()
}
