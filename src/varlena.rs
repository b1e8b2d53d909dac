//! Values of variable length as PostgreSQL lays them out: the macros of `varatt.h`, which have no
//! bindings.

use pgrx::pg_sys;
use state_cache_memory::{OutOfMemory, boxed, collect, try_collect};

/// `VARHDRSZ`: bytes of the header of an uncompressed, untoasted value.
pub const VARHDRSZ: usize = 4;

/// The bytes of a varlena value, detoasted only where it is compressed or stored out of line; what that
/// allocates lives in the current memory context.
///
/// # Safety
/// `value` points to a varlena, which outlives `'a`, as does the memory context.
pub unsafe fn detoasted_bytes<'a>(value: *mut pg_sys::varlena) -> &'a [u8] {
    // SAFETY: the caller's promise.
    unsafe {
        let plain = if is_toasted(value) {
            pg_sys::pg_detoast_datum_packed(value)
        } else {
            value
        };
        varlena_bytes(plain)
    }
}

/// The bytes of a varlena value, and where it is compressed all of it as it is stored, with its header.
///
/// # Safety
/// As for [`detoasted_bytes`].
pub unsafe fn with_stored<'a>(value: *mut pg_sys::varlena) -> (&'a [u8], Option<&'a [u8]>) {
    // SAFETY: the caller's promise. A value that is neither plain nor out of line is compressed, and as long as its
    // header says, as a plain one is.
    unsafe {
        if !is_toasted(value) {
            return (varlena_bytes(value), None);
        }
        let inline = match is_external(value) {
            true => pg_sys::detoast_external_attr(value),
            false => value,
        };
        if !is_toasted(inline) {
            return (varlena_bytes(inline), None);
        }
        let total = long_header(inline.cast::<u32>().read_unaligned()) as usize;
        let stored = std::slice::from_raw_parts(inline.cast::<u8>(), total);
        (detoasted_bytes(inline), Some(stored))
    }
}

/// The bytes of a varlena value, if it is neither compressed nor stored out of line.
///
/// # Safety
/// `value` points to a varlena, which outlives `'a`.
pub unsafe fn plain_bytes<'a>(value: *mut pg_sys::varlena) -> Option<&'a [u8]> {
    // SAFETY: the caller's promise.
    unsafe { (!is_toasted(value)).then(|| varlena_bytes(value)) }
}

/// Bytes of a varlena value with its header, if the header is the long one of a value that is neither compressed nor
/// stored out of line.
///
/// # Safety
/// `value` is a varlena datum.
pub unsafe fn plain_size(value: pg_sys::Datum) -> Option<usize> {
    let value = value.cast_mut_ptr::<pg_sys::varlena>();
    // SAFETY: the caller's promise; a value that is neither has four bytes of header, or a short one.
    unsafe {
        if is_toasted(value) || is_short(*value.cast::<u8>()) {
            return None;
        }
        Some(long_header(value.cast::<u32>().read_unaligned()) as usize)
    }
}

/// Bytes of a varlena value behind its header once it is detoasted; only the header is read.
///
/// # Safety
/// `value` is a varlena datum.
pub unsafe fn raw_size(value: pg_sys::Datum) -> usize {
    // SAFETY: the caller's promise.
    let size = unsafe { pg_sys::toast_raw_datum_size(value) };
    size.saturating_sub(VARHDRSZ)
}

/// The first byte of a varlena value, if it has one; no more is detoasted where the value is stored as it is.
///
/// # Safety
/// `value` is a varlena datum.
pub unsafe fn first_byte(value: pg_sys::Datum) -> Option<u8> {
    // SAFETY: the caller's promise; what detoasting allocates is read while it is there.
    unsafe {
        let slice = pg_sys::pg_detoast_datum_slice(value.cast_mut_ptr(), 0, 1);
        varlena_bytes(slice).first().copied()
    }
}

/// The elements of a `text[]` value, `None` for NULL; arrays of several dimensions are read in storage order.
///
/// # Safety
/// `array` is a `text[]` datum; it outlives `'a`, as does the current memory context.
///
/// # Errors
/// [`OutOfMemory`].
pub unsafe fn text_elements<'a>(
    array: pg_sys::Datum,
) -> Result<Vec<Option<&'a [u8]>>, OutOfMemory> {
    // SAFETY: the caller's promise.
    unsafe { elements(array, pg_sys::TEXTOID) }
}

/// The same of a `bytea[]` value.
///
/// # Safety
/// As for [`text_elements`].
///
/// # Errors
/// [`OutOfMemory`].
pub unsafe fn bytea_elements<'a>(
    array: pg_sys::Datum,
) -> Result<Vec<Option<&'a [u8]>>, OutOfMemory> {
    // SAFETY: the caller's promise.
    unsafe { elements(array, pg_sys::BYTEAOID) }
}

/// The elements of a `bigint[]` value, `None` for NULL; arrays of several dimensions are read in storage order.
///
/// # Safety
/// `array` is a `bigint[]` datum.
///
/// # Errors
/// [`OutOfMemory`].
pub unsafe fn bigint_elements(array: pg_sys::Datum) -> Result<Vec<Option<i64>>, OutOfMemory> {
    // SAFETY: the caller's promise; the server's own layout of the type: eight bytes, by value on 64 bits.
    unsafe {
        let array = pg_sys::pg_detoast_datum(array.cast_mut_ptr()).cast::<pg_sys::ArrayType>();
        let (mut elements, mut nulls, mut count) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
        pg_sys::deconstruct_array(
            array,
            pg_sys::INT8OID,
            8,
            true,
            pg_sys::TYPALIGN_DOUBLE as std::ffi::c_char,
            &mut elements,
            &mut nulls,
            &mut count,
        );
        let count = usize::try_from(count).unwrap_or(0);
        let element = |i| {
            let is_null: bool = *nulls.add(i);
            (!is_null).then(|| (*elements.add(i)).value() as i64)
        };
        collect((0..count).map(element))
    }
}

/// The elements of an array of a type whose values are varlenas aligned as integers.
///
/// # Safety
/// `array` is such an array; it outlives `'a`, as does the current memory context.
unsafe fn elements<'a>(
    array: pg_sys::Datum,
    of_type: pg_sys::Oid,
) -> Result<Vec<Option<&'a [u8]>>, OutOfMemory> {
    // SAFETY: the caller's promise.
    unsafe {
        let array = pg_sys::pg_detoast_datum(array.cast_mut_ptr()).cast::<pg_sys::ArrayType>();
        let (mut elements, mut nulls, mut count) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
        pg_sys::deconstruct_array(
            array,
            of_type,
            -1,
            false,
            pg_sys::TYPALIGN_INT as std::ffi::c_char,
            &mut elements,
            &mut nulls,
            &mut count,
        );
        let count = usize::try_from(count).unwrap_or(0);
        let element = |i| {
            let is_null: bool = *nulls.add(i);
            (!is_null).then(|| detoasted_bytes((*elements.add(i)).cast_mut_ptr()))
        };
        collect((0..count).map(element))
    }
}

/// Copies of the elements of a `text[]` value that are not NULL.
///
/// # Safety
/// `array` is a `text[]` datum.
///
/// # Errors
/// [`OutOfMemory`].
pub unsafe fn text_array(array: pg_sys::Datum) -> Result<Vec<Box<[u8]>>, OutOfMemory> {
    // SAFETY: the caller's promise.
    let elements = unsafe { text_elements(array) }?;
    try_collect(elements.into_iter().flatten().map(boxed))
}

/// `VARATT_IS_EXTERNAL` or `VARATT_IS_COMPRESSED`.
///
/// # Safety
/// `value` points to a varlena.
unsafe fn is_toasted(value: *const pg_sys::varlena) -> bool {
    // SAFETY: a varlena has at least one byte.
    let first = unsafe { *value.cast::<u8>() };
    // SAFETY: the caller's promise.
    let is_external = unsafe { is_external(value) };
    is_external
        || if cfg!(target_endian = "little") {
            first & 0x03 == 0x02
        } else {
            first & 0xc0 == 0x40
        }
}

/// `VARATT_IS_EXTERNAL`.
///
/// # Safety
/// `value` points to a varlena.
unsafe fn is_external(value: *const pg_sys::varlena) -> bool {
    // SAFETY: a varlena has at least one byte.
    let first = unsafe { *value.cast::<u8>() };
    first
        == if cfg!(target_endian = "little") {
            0x01
        } else {
            0x80
        }
}

/// The bytes of a varlena value that is neither compressed nor external.
///
/// # Safety
/// `value` points to such a value, which outlives `'a`.
unsafe fn varlena_bytes<'a>(value: *const pg_sys::varlena) -> &'a [u8] {
    let head = value.cast::<u8>();
    // SAFETY: a varlena value has at least one byte, and as many as its header says.
    unsafe {
        let first = *head;
        if is_short(first) {
            let total = usize::from(short_header(first));
            return std::slice::from_raw_parts(head.add(1), total - 1);
        }
        let word = value.cast::<u32>().read_unaligned();
        let total = long_header(word) as usize;
        std::slice::from_raw_parts(head.add(VARHDRSZ), total - VARHDRSZ)
    }
}

#[cfg(target_endian = "little")]
const fn is_short(first: u8) -> bool {
    first & 0x01 == 0x01
}
#[cfg(target_endian = "little")]
const fn short_header(first: u8) -> u8 {
    first >> 1
}
#[cfg(target_endian = "little")]
const fn long_header(word: u32) -> u32 {
    word >> 2
}
/// `SET_VARSIZE`: the header word of an uncompressed value of `total` bytes, header included.
#[cfg(target_endian = "little")]
pub const fn varsize_header(total: u32) -> u32 {
    total << 2
}

#[cfg(target_endian = "big")]
const fn is_short(first: u8) -> bool {
    first & 0x80 == 0x80
}
#[cfg(target_endian = "big")]
const fn short_header(first: u8) -> u8 {
    first & 0x7f
}
#[cfg(target_endian = "big")]
const fn long_header(word: u32) -> u32 {
    word & 0x3fff_ffff
}
/// `SET_VARSIZE`: the header word of an uncompressed value of `total` bytes, header included.
#[cfg(target_endian = "big")]
pub const fn varsize_header(total: u32) -> u32 {
    total & 0x3fff_ffff
}

/// How an array holds elements of a type: the type, bytes of an element or -1 for varlenas, whether they are passed
/// by value, and how they are aligned.
#[derive(Clone, Copy)]
pub struct ElementType(pg_sys::Oid, i32, bool, u8);

/// `text`
pub const TEXT: ElementType = ElementType(pg_sys::TEXTOID, -1, false, pg_sys::TYPALIGN_INT);
/// `jsonb`
pub const JSONB: ElementType = ElementType(pg_sys::JSONBOID, -1, false, pg_sys::TYPALIGN_INT);
/// `integer`
pub const INTEGER: ElementType = ElementType(pg_sys::INT4OID, 4, true, pg_sys::TYPALIGN_INT);

/// An array of these elements, `None` for NULL, in the current memory context.
///
/// # Errors
/// [`OutOfMemory`].
pub fn array_datum(
    of: ElementType,
    elements: impl ExactSizeIterator<Item = Option<pg_sys::Datum>>,
) -> Result<pg_sys::Datum, OutOfMemory> {
    let ElementType(oid, length, by_value, align) = of;
    let mut dimensions = [i32::try_from(elements.len()).unwrap_or(i32::MAX)];
    let mut lower = [1];
    let elements = collect(elements)?;
    let mut nulls = collect(elements.iter().map(Option::is_none))?;
    let mut values = collect(
        elements
            .iter()
            .map(|it| it.unwrap_or(pg_sys::Datum::from(0usize))),
    )?;
    // SAFETY: as many values and nulls as the one dimension says, all of the type whose layout is given; the server
    // copies them, and raises its own error for more than an array can hold.
    let array = unsafe {
        pg_sys::construct_md_array(
            values.as_mut_ptr(),
            nulls.as_mut_ptr(),
            1,
            dimensions.as_mut_ptr(),
            lower.as_mut_ptr(),
            oid,
            length,
            by_value,
            align as std::ffi::c_char,
        )
    };
    Ok(pg_sys::Datum::from(array))
}
