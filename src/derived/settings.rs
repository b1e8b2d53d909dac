//! The settings that the answer of a query may depend on, the same in every session.

use pgrx::pg_sys;
use std::ffi::CStr;

/// What each is while a source is read or runs. That of `search_path` is the class's own.
const FIXED: [(&CStr, &CStr); 13] = [
    (c"TimeZone", c"UTC"),
    (c"DateStyle", c"ISO, MDY"),
    (c"IntervalStyle", c"postgres"),
    (c"extra_float_digits", c"1"),
    (c"bytea_output", c"hex"),
    (c"xmlbinary", c"base64"),
    (c"xmloption", c"content"),
    (c"lc_monetary", c"C"),
    (c"lc_numeric", c"C"),
    (c"lc_time", c"C"),
    (c"default_text_search_config", c"pg_catalog.simple"),
    (c"standard_conforming_strings", c"on"),
    (c"transform_null_equals", c"off"),
];

/// The settings are these for as long as the value lives.
pub struct Fixed(i32);

impl Fixed {
    /// Sets what is not so already.
    pub fn set(search_path: &CStr) -> Self {
        // SAFETY: changes settings of this session, put back by `drop` or by the abort of the (sub)transaction. Names
        // and values are NUL-terminated; the server knows all of them.
        unsafe {
            let level = pg_sys::NewGUCNestLevel();
            for (name, value) in FIXED.into_iter().chain([(c"search_path", search_path)]) {
                let now = pg_sys::GetConfigOption(name.as_ptr(), true, false);
                if now.is_null() || CStr::from_ptr(now) != value {
                    pg_sys::set_config_option(
                        name.as_ptr(),
                        value.as_ptr(),
                        pg_sys::GucContext::PGC_USERSET,
                        pg_sys::GucSource::PGC_S_SESSION,
                        pg_sys::GucAction::GUC_ACTION_SAVE,
                        true,
                        0,
                        false,
                    );
                }
            }
            Self(level)
        }
    }
}

impl Drop for Fixed {
    fn drop(&mut self) {
        // On an error the server puts them back when it aborts the (sub)transaction.
        if !std::thread::panicking() {
            // SAFETY: the level was opened by `set`; those that were opened since are closed.
            unsafe { pg_sys::AtEOXact_GUC(true, self.0) };
        }
    }
}
