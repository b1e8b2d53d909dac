//! stub
use crate::cache::StateRef;
use crate::error::Result;
pub const SWARM: &[u8] = b"swarm";
pub fn put(
    _: &StateRef<'_>,
    _: &[u8],
    _: &[u8],
    _: &[u8],
    _: Option<&[u8]>,
    _: &std::ffi::CStr,
) -> Result<()> {
    Ok(())
}
pub fn check_attributes(_: &[u8]) -> Result<()> {
    Ok(())
}
