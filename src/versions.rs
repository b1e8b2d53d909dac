//! Layouts that this code knows by itself, compared with the headers of the server that it is compiled for: a server
//! that differs fails the build. Single numbers are compared where they stand, in the same way.
//!
//! PostgreSQL 15 to 18 are supported. Where versions differ, the code names the older ones and the rest is the
//! newest form, which is what the next version meets first. The next version needs a feature in `Cargo.toml`, its
//! number in `scripts/lib.sh`, and somebody who reads in its headers what no compiler can compare:
//! - `sys.rs`: the declarations of the functions that the bindings lack;
//! - `varlena.rs` and `numeric.rs` of `crates/document`: macros of `varatt.h` and `numeric.c`, unchanged since 9.4
//!   because `pg_upgrade` keeps what they describe on disk;
//! - `worker/process.rs`: the settings that a worker chooses for itself.

use pgrx::pg_sys;
use state_cache_document::layout;
use std::mem::offset_of;

#[cfg(not(any(feature = "pg15", feature = "pg16", feature = "pg17", feature = "pg18")))]
compile_error!("choose one of the features pg15, pg16, pg17 and pg18: the server to compile for");

// Jsonb, as `crates/document` reads and builds it (`utils/jsonb.h`).
const _: () = {
    assert!(layout::WORD == size_of::<pg_sys::JEntry>());
    assert!(layout::WORD == offset_of!(pg_sys::JsonbContainer, children));
    assert!(layout::COUNT_MASK == pg_sys::JB_CMASK);
    assert!(layout::SCALAR == pg_sys::JB_FSCALAR);
    assert!(layout::OBJECT == pg_sys::JB_FOBJECT);
    assert!(layout::ARRAY == pg_sys::JB_FARRAY);
    assert!(layout::LENGTH_MASK == pg_sys::JENTRY_OFFLENMASK);
    assert!(layout::KIND_MASK == pg_sys::JENTRY_TYPEMASK);
    assert!(layout::HAS_OFFSET == pg_sys::JENTRY_HAS_OFF);
    assert!(layout::STRIDE == pg_sys::JB_OFFSET_STRIDE as usize);
    assert!(layout::STRING == pg_sys::JENTRY_ISSTRING);
    assert!(layout::NUMERIC == pg_sys::JENTRY_ISNUMERIC);
    assert!(layout::FALSE == pg_sys::JENTRY_ISBOOL_FALSE);
    assert!(layout::TRUE == pg_sys::JENTRY_ISBOOL_TRUE);
    assert!(layout::NULL == pg_sys::JENTRY_ISNULL);
    assert!(layout::CONTAINER == pg_sys::JENTRY_ISCONTAINER);
};

// The two headers of values of variable length, as `varlena.rs` reads and writes them (`varatt.h`).
const _: () = {
    assert!(crate::varlena::VARHDRSZ == offset_of!(pg_sys::varattrib_4b__bindgen_ty_1, va_data));
    assert!(offset_of!(pg_sys::varattrib_1b, va_data) == 1);
};
