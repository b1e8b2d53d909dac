//! Whose script made the tables and functions of a database, and whether this library works with them.
//!
//! The library is replaced first, with a restart, and each database is updated later, or never. So a session asks
//! whenever it looks its tables up anew: once, and again when one of them changes, as each step from release to
//! release makes sure.

use crate::error::{Error, Result, text};

/// The release of this library, and of the newest script that it knows.
pub const LIBRARY: &str = env!("CARGO_PKG_VERSION");

/// The oldest release whose script it works with: all that this one offered is offered still.
const OLDEST: &str = "0.1.0";

/// `55000` unless this library works with the script of the release `installed`.
pub fn check(installed: &[u8]) -> Result<()> {
    let version = numbers(installed);
    if version >= numbers(OLDEST.as_bytes()) && version <= numbers(LIBRARY.as_bytes()) {
        return Ok(());
    }
    Err(Error::OtherVersion {
        installed: text(installed),
        library: LIBRARY,
        oldest: OLDEST,
        // No release is called otherwise so far.
        newer: version.is_none() || version > numbers(LIBRARY.as_bytes()),
    })
}

/// A release as three numbers; `None` for what is none.
fn numbers(version: &[u8]) -> Option<[u32; 3]> {
    let mut parts = version.split(|byte| *byte == b'.').map(number);
    let numbers = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(numbers)
}

fn number(digits: &[u8]) -> Option<u32> {
    let all = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let digits = std::str::from_utf8(digits).ok()?;
    all.then(|| digits.parse().ok())?
}
