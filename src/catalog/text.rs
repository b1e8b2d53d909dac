//! Names as the server takes them.

use std::ffi::CString;

/// A NUL-terminated copy for PostgreSQL; text never holds NUL bytes.
pub fn c_string(bytes: &[u8]) -> CString {
    CString::new(bytes).unwrap_or_default()
}
