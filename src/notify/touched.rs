//! What of a state changes have touched, as far as subscribers are told.

use super::message::{self, Told};
use std::collections::BTreeSet;
use std::rc::Rc;

/// What changes have touched: items of the blackboard in the document, the rest of it, or both.
#[derive(Debug, Clone, Default)]
pub struct Touched {
    items: Items,
    rest: bool,
}

#[derive(Debug, Clone, Default)]
enum Items {
    #[default]
    None,
    /// These, shared with what a rollback goes back to.
    Some(Rc<Names>),
    /// More than are named.
    Many,
}

/// Keys of items.
#[derive(Debug, Clone, Default)]
struct Names {
    keys: BTreeSet<Box<[u8]>>,
    /// What they need in a message.
    bytes: usize,
}

impl Touched {
    /// An item of the blackboard.
    pub fn item(key: &[u8]) -> Self {
        let mut names = Names::default();
        let items = match names.add(key) {
            true => Items::Some(Rc::new(names)),
            false => Items::Many,
        };
        Self { items, rest: false }
    }

    /// The document, without regard to items.
    pub fn document() -> Self {
        Self {
            items: Items::None,
            rest: true,
        }
    }

    /// What this and a later change have touched together.
    #[must_use]
    pub fn and(mut self, later: &Self) -> Self {
        self.rest |= later.rest;
        self.items = match (self.items, &later.items) {
            (items, Items::None) => items,
            (Items::None, items) => items.clone(),
            (Items::Many, _) | (_, Items::Many) => Items::Many,
            (Items::Some(mut names), Items::Some(more)) => {
                let all = Rc::make_mut(&mut names);
                match more.keys.iter().all(|key| all.add(key)) {
                    true => Items::Some(names),
                    false => Items::Many,
                }
            }
        };
        self
    }

    /// Whether items were changed as such: subscribers are to hear of them.
    pub fn has_items(&self) -> bool {
        !matches!(self.items, Items::None)
    }

    /// What a message says of it.
    pub fn told(&self) -> Told<'_> {
        match &self.items {
            Items::None => Told::Nothing,
            Items::Some(names) if !self.rest => Told::Items(&names.keys),
            Items::Some(_) | Items::Many => Told::Everything,
        }
    }
}

impl Names {
    /// Adds one; whether there is room for it, and a message can name it.
    fn add(&mut self, key: &[u8]) -> bool {
        if !self.keys.contains(key) {
            let Some(bytes) = message::bytes_of_item(key) else {
                return false;
            };
            self.bytes += bytes;
            self.keys.insert(key.into());
        }
        self.bytes <= message::MAX_ITEMS
    }
}
