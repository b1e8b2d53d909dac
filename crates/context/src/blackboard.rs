//! The blackboard of a swarm: items that runs leave for each other.
//!
//! The state of a swarm is the application's. Of its document this module knows the member `blackboard`, an object of
//! items by their keys, and leaves the rest as it is. Without that member, or without a state, there are no items.
//!
//! An item whose time is over is gone for everyone who looks, and is dropped by the next change. A change checks the
//! item that it is about and the times of all, [`select`] checks everything; nothing is put right in silence.

use std::borrow::Cow;

use state_cache_document::{self as document, DocumentError};

use crate::error::{Problem, ShapeError, excerpt};
use crate::fields::{self, Record};
use crate::labels::{AccessLevel, ItemType, Label};
use crate::timestamp::rfc3339;
use state_cache_memory::{Grow, OutOfMemory, copy, try_collect, with_capacity};

/// The member of the document that holds the items.
const BLACKBOARD: &str = "blackboard";

const KEY: &str = "key";
const VALUE: &str = "value";
const TYPE: &str = "type";
const CREATED_BY: &str = "createdBy";
const CREATED_AT: &str = "createdAt";
const EXPIRES_AT: &str = "expiresAt";
const ACCESS_LEVEL: &str = "accessLevel";
const TAGS: &str = "tags";

/// An item, as it is added. Times are in microseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its name.
    pub key: Vec<u8>,
    /// Any document but `null`.
    pub value: Vec<u8>,
    /// What it is.
    pub item_type: ItemType,
    /// Who added it.
    pub created_by: Vec<u8>,
    /// When.
    pub created_at: i64,
    /// From when on it is gone; `None` for never.
    pub expires_at: Option<i64>,
    /// Whom it is meant for.
    pub access_level: AccessLevel,
    /// Words to find it by.
    pub tags: Vec<Vec<u8>>,
}

/// What becomes of an item that is there; what is `None` stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ItemUpdate {
    /// Any document but `null`.
    pub value: Option<Vec<u8>>,
    /// What it is.
    pub item_type: Option<ItemType>,
    /// From when on it is gone, in microseconds since 1970.
    pub expires_at: Option<i64>,
    /// Whom it is meant for.
    pub access_level: Option<AccessLevel>,
    /// Words to find it by.
    pub tags: Option<Vec<Vec<u8>>>,
}

/// A change of a blackboard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ItemChange {
    /// A new item.
    Add(Item),
    /// An item, in place of one of the same key if there is one.
    Put(Item),
    /// Another content of the item with this key.
    Update(Vec<u8>, ItemUpdate),
    /// The item with this key is gone from here on, if there is one.
    Remove(Vec<u8>),
}

/// Why an item is not changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ItemError {
    /// What is to be added is there.
    Exists,
    /// What is to be updated is not there; or there is no state, and nothing to be added to one.
    Missing,
    /// The document is not that of a swarm.
    Shape(ShapeError),
}

impl From<ShapeError> for ItemError {
    fn from(error: ShapeError) -> Self {
        Self::Shape(error)
    }
}

impl From<OutOfMemory> for ItemError {
    fn from(refused: OutOfMemory) -> Self {
        Self::Shape(refused.into())
    }
}

impl From<DocumentError> for ItemError {
    fn from(error: DocumentError) -> Self {
        Self::Shape(error.into())
    }
}

/// Which items are wanted; what is `None` does not matter.
#[derive(Debug, Clone, Copy, Default)]
pub struct ItemFilter<'a> {
    /// Those of this type.
    pub item_type: Option<ItemType>,
    /// Those that have this tag among others.
    pub tag: Option<&'a [u8]>,
    /// Those that this one has added.
    pub created_by: Option<&'a [u8]>,
    /// Those of this access level.
    pub access_level: Option<AccessLevel>,
}

impl Item {
    /// As the blackboard holds it.
    fn document(&self) -> Result<Vec<u8>, DocumentError> {
        let mut members = vec![
            (KEY, document::string(&self.key)?.into()),
            (VALUE, Cow::Borrowed(&*self.value)),
            (TYPE, text(self.item_type.name())?),
            (CREATED_BY, document::string(&self.created_by)?.into()),
            (CREATED_AT, text(&rfc3339(self.created_at))?),
            (ACCESS_LEVEL, text(self.access_level.name())?),
            (TAGS, texts(&self.tags)?.into()),
        ];
        if let Some(at) = self.expires_at {
            members.push((EXPIRES_AT, text(&rfc3339(at))?));
        }
        document::object(&members)
    }
}

impl ItemUpdate {
    /// An item after it.
    fn apply(&self, item: &[u8]) -> Result<Vec<u8>, DocumentError> {
        let mut members = Vec::new();
        if let Some(value) = &self.value {
            members.push((VALUE, Cow::Borrowed(&**value)));
        }
        if let Some(item_type) = self.item_type {
            members.push((TYPE, text(item_type.name())?));
        }
        if let Some(at) = self.expires_at {
            members.push((EXPIRES_AT, text(&rfc3339(at))?));
        }
        if let Some(level) = self.access_level {
            members.push((ACCESS_LEVEL, text(level.name())?));
        }
        if let Some(tags) = &self.tags {
            members.push((TAGS, texts(tags)?.into()));
        }
        document::update(Some(item), &document::object(&members)?)
    }
}

impl ItemChange {
    /// The key of the item that it is about.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        match self {
            Self::Add(item) | Self::Put(item) => &item.key,
            Self::Update(key, _) | Self::Remove(key) => key,
        }
    }

    /// Bytes of what it carries.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let (value, tags) = match self {
            Self::Add(item) | Self::Put(item) => (item.value.len(), Some(&item.tags)),
            Self::Update(_, update) => (
                update.value.as_ref().map_or(0, Vec::len),
                update.tags.as_ref(),
            ),
            Self::Remove(_) => (0, None),
        };
        let tags = tags.map_or(0, |tags| tags.iter().map(Vec::len).sum());
        self.key().len() + value + tags
    }

    /// The document of a swarm after the change, made at `now`, and without what was gone by then.
    ///
    /// # Errors
    /// As [`ItemError`] says.
    pub fn apply(&self, base: Option<&[u8]>, now: i64) -> Result<Vec<u8>, ItemError> {
        let before = match base {
            Some(base) => items(base)?,
            None => Vec::new(),
        };
        let count = before.len();
        let mut found = None;
        let mut after = with_capacity(count + 1)?;
        for (key, item) in before {
            if is_over(item, now).map_err(|error| within_item(error, key))? {
                continue;
            }
            if key == self.key() {
                found = Some(item);
            } else {
                after.push((key, item));
            }
        }
        let changed = match (self, found) {
            (Self::Add(_), Some(_)) => return Err(ItemError::Exists),
            (Self::Update(..), None) => return Err(ItemError::Missing),
            (Self::Add(item), None) | (Self::Put(item), _) => Some(item.document()?),
            (Self::Update(key, update), Some(item)) => {
                check_item(key, item).map_err(|error| within_item(error, key))?;
                Some(update.apply(item)?)
            }
            (Self::Remove(_), _) => None,
        };
        match (base, &changed) {
            (None, None) => return Err(ItemError::Missing),
            (Some(base), None) if after.len() == count => return Ok(copy(base)?),
            (_, None) => {}
            (_, Some(item)) => after.push((self.key(), item)),
        }
        let blackboard = document::object(&after)?;
        let updates = document::object(&[(BLACKBOARD, blackboard)])?;
        Ok(document::update(base, &updates)?)
    }
}

/// Whether the blackboard in a document has an item with this key at this time.
///
/// # Errors
/// The first field that is not as it must be, of those that tell.
pub fn has_item(base: &[u8], key: &[u8], now: i64) -> Result<bool, ShapeError> {
    let Some(blackboard) = fields::object(base, BLACKBOARD)? else {
        return Ok(false);
    };
    let item = document::member(blackboard, key).map_err(ShapeError::from);
    let Some(item) = item.map_err(within_blackboard)? else {
        return Ok(false);
    };
    let item = fields::as_object(item).map_err(ShapeError::whole);
    let is_over = item.and_then(|item| is_over(item, now));
    Ok(!is_over.map_err(|error| within_item(error, key))?)
}

/// The items of the blackboard in a document that are there at this time and wanted: an object of them by their keys.
///
/// # Errors
/// The first field that is not as it must be, of any item.
pub fn select(base: &[u8], filter: &ItemFilter<'_>, now: i64) -> Result<Vec<u8>, ShapeError> {
    let mut wanted = Vec::new();
    for (key, item) in items(base)? {
        let found = check_item(key, item).map_err(|error| within_item(error, key))?;
        if found.expires_at.is_none_or(|at| at > now) && found.passes(filter) {
            wanted.try_push((key, item))?;
        }
    }
    Ok(document::object(&wanted)?)
}

/// What an item says of itself.
struct Found<'a> {
    item_type: ItemType,
    created_by: Vec<u8>,
    expires_at: Option<i64>,
    access_level: AccessLevel,
    tags: Vec<Cow<'a, [u8]>>,
}

impl Found<'_> {
    fn passes(&self, filter: &ItemFilter<'_>) -> bool {
        let has_tag = |wanted| {
            let tags = self.tags.iter();
            tags.map(|tag| document::as_string(tag))
                .any(|tag| tag == Some(wanted))
        };
        filter.item_type.is_none_or(|it| it == self.item_type)
            && filter.access_level.is_none_or(|it| it == self.access_level)
            && filter.created_by.is_none_or(|it| it == self.created_by)
            && filter.tag.is_none_or(has_tag)
    }
}

/// The items in a document, by their keys.
fn items(base: &[u8]) -> Result<Vec<Record<'_>>, ShapeError> {
    match fields::object(base, BLACKBOARD)? {
        Some(blackboard) => fields::objects(blackboard).map_err(within_blackboard),
        None => Ok(Vec::new()),
    }
}

fn within_blackboard(error: ShapeError) -> ShapeError {
    error.within(BLACKBOARD.as_bytes())
}

fn within_item(error: ShapeError, key: &[u8]) -> ShapeError {
    within_blackboard(error.within(key))
}

/// Whether the time of an item is over.
fn is_over(item: &[u8], now: i64) -> Result<bool, ShapeError> {
    Ok(fields::timestamp(item, EXPIRES_AT)?.is_some_and(|at| at <= now))
}

/// Raises unless the item is as one of this key must be; what it says.
fn check_item<'a>(key: &[u8], item: &'a [u8]) -> Result<Found<'a>, ShapeError> {
    let own_key = fields::required(fields::text(item, KEY)?, KEY)?;
    if own_key != key {
        let found = excerpt(&own_key);
        return Err(ShapeError::new(
            KEY.as_bytes(),
            Problem::NotTheKey { found },
        ));
    }
    fields::required(fields::any(item, VALUE)?, VALUE)?;
    fields::required(fields::timestamp(item, CREATED_AT)?, CREATED_AT)?;
    let item_type = fields::label::<ItemType>(item, TYPE)?;
    let access_level = fields::label::<AccessLevel>(item, ACCESS_LEVEL)?;
    Ok(Found {
        item_type: fields::required(item_type, TYPE)?,
        created_by: fields::required(fields::text(item, CREATED_BY)?, CREATED_BY)?,
        expires_at: fields::timestamp(item, EXPIRES_AT)?,
        access_level: fields::required(access_level, ACCESS_LEVEL)?,
        tags: tags(item)?,
    })
}

fn tags(item: &[u8]) -> Result<Vec<Cow<'_, [u8]>>, ShapeError> {
    let tags = fields::required(fields::array(item, TAGS)?, TAGS)?;
    let tags = document::elements(tags).map_err(ShapeError::from)?;
    let no_text = tags
        .iter()
        .position(|tag| document::as_string(tag).is_none());
    match no_text {
        Some(place) => Err(ShapeError::whole(Problem::NotText)
            .within_element(place)
            .within(TAGS.as_bytes())),
        None => Ok(tags),
    }
}

fn text(text: &str) -> Result<Cow<'static, [u8]>, DocumentError> {
    document::string(text.as_bytes()).map(Cow::Owned)
}

fn texts(texts: &[Vec<u8>]) -> Result<Vec<u8>, DocumentError> {
    let elements = try_collect(texts.iter().map(|text| document::string(text)))?;
    document::array(&elements)
}

#[cfg(test)]
mod tests;
