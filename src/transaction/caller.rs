//! What write-behind tells this transaction, and asks it.

use super::batch::note_written_back;
use super::overrule::{note_by_hand, own_floor, raise_floor};
use crate::behind;
use crate::cache::publish::Settlement;
use crate::catalog::{Catalog, Class};
use crate::error::Result;
use std::rc::Rc;

/// The running transaction.
pub struct Caller;

impl behind::Caller for Caller {
    fn floor(&self, class: &[u8], key: &[u8]) -> i64 {
        own_floor(class, key)
    }

    fn raise_floor(&self, class: &Class, key: &[u8], version: i64) -> Result<()> {
        raise_floor(class, key, version)
    }

    fn note_by_hand(&self, catalog: &Rc<Catalog>, class: &Class, key: &[u8]) -> Result<()> {
        note_by_hand(catalog, class, key)
    }

    fn note_written_back(&self, entry: Settlement) -> Result<()> {
        note_written_back(entry)
    }
}
