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
use crate::labels::{AccessLevel, ItemType};
use crate::timestamp::{parse_rfc3339, rfc3339};

/// The member of the document that holds the items.
const BLACKBOARD: &[u8] = b"blackboard";

const KEY: &[u8] = b"key";
const VALUE: &[u8] = b"value";
const TYPE: &[u8] = b"type";
const CREATED_BY: &[u8] = b"createdBy";
const CREATED_AT: &[u8] = b"createdAt";
const EXPIRES_AT: &[u8] = b"expiresAt";
const ACCESS_LEVEL: &[u8] = b"accessLevel";
const TAGS: &[u8] = b"tags";

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
            (KEY, document::string(&self.key)),
            (VALUE, self.value.clone()),
            (TYPE, text(self.item_type.name())),
            (CREATED_BY, document::string(&self.created_by)),
            (CREATED_AT, text(&rfc3339(self.created_at))),
            (ACCESS_LEVEL, text(self.access_level.name())),
            (TAGS, texts(&self.tags)?),
        ];
        if let Some(at) = self.expires_at {
            members.push((EXPIRES_AT, text(&rfc3339(at))));
        }
        document::object(&members)
    }
}

impl ItemUpdate {
    /// An item after it.
    fn apply(&self, item: &[u8]) -> Result<Vec<u8>, DocumentError> {
        let mut members = Vec::new();
        if let Some(value) = &self.value {
            members.push((VALUE, value.clone()));
        }
        if let Some(item_type) = self.item_type {
            members.push((TYPE, text(item_type.name())));
        }
        if let Some(at) = self.expires_at {
            members.push((EXPIRES_AT, text(&rfc3339(at))));
        }
        if let Some(level) = self.access_level {
            members.push((ACCESS_LEVEL, text(level.name())));
        }
        if let Some(tags) = &self.tags {
            members.push((TAGS, texts(tags)?));
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
        let mut after = Vec::with_capacity(count + 1);
        for (key, item) in before {
            if is_over(&item, now).map_err(|error| within_item(error, key))? {
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
                check_item(key, &item).map_err(|error| within_item(error, key))?;
                Some(update.apply(&item)?)
            }
            (Self::Remove(_), _) => None,
        };
        match (base, changed) {
            (None, None) => return Err(ItemError::Missing),
            (Some(base), None) if after.len() == count => return Ok(base.to_vec()),
            (_, None) => {}
            (_, Some(item)) => after.push((self.key(), Cow::Owned(item))),
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
    let Some(blackboard) = section(base)? else {
        return Ok(false);
    };
    let within = |error: DocumentError| ShapeError::from(error).within(BLACKBOARD);
    match document::member(blackboard, key).map_err(within)? {
        Some(item) => Ok(!is_over(&item, now).map_err(|error| within_item(error, key))?),
        None => Ok(false),
    }
}

/// The items of the blackboard in a document that are there at this time and wanted: an object of them by their keys.
///
/// # Errors
/// The first field that is not as it must be, of any item.
pub fn select(base: &[u8], filter: &ItemFilter<'_>, now: i64) -> Result<Vec<u8>, ShapeError> {
    let mut wanted = Vec::new();
    for (key, item) in items(base)? {
        let found = check_item(key, &item).map_err(|error| within_item(error, key))?;
        if found.expires_at.is_none_or(|at| at > now) && found.passes(filter) {
            wanted.push((key, item));
        }
    }
    Ok(document::object(&wanted)?)
}

/// What an item says of itself.
struct Found<'a> {
    item_type: ItemType,
    created_by: Cow<'a, [u8]>,
    expires_at: Option<i64>,
    access_level: AccessLevel,
    tags: Vec<Cow<'a, [u8]>>,
}

impl Found<'_> {
    fn passes(&self, filter: &ItemFilter<'_>) -> bool {
        let text_is = |scalar: &[u8], wanted| document::as_string(scalar) == Some(wanted);
        filter.item_type.is_none_or(|it| it == self.item_type)
            && filter.access_level.is_none_or(|it| it == self.access_level)
            && filter
                .created_by
                .is_none_or(|it| text_is(&self.created_by, it))
            && filter
                .tag
                .is_none_or(|it| self.tags.iter().any(|tag| text_is(tag, it)))
    }
}

/// The object of items in a document.
fn section(base: &[u8]) -> Result<Option<&[u8]>, ShapeError> {
    match document::member(base, BLACKBOARD)? {
        None => Ok(None),
        Some(Cow::Borrowed(blackboard)) => Ok(Some(blackboard)),
        Some(Cow::Owned(scalar)) => Err(ShapeError::new(BLACKBOARD, no_object(&scalar))),
    }
}

/// The items in a document, by their keys.
fn items(base: &[u8]) -> Result<Vec<document::Member<'_>>, ShapeError> {
    match section(base)? {
        Some(blackboard) => document::members(blackboard)
            .map_err(|error| ShapeError::from(error).within(BLACKBOARD)),
        None => Ok(Vec::new()),
    }
}

fn within_item(error: ShapeError, key: &[u8]) -> ShapeError {
    error.within(key).within(BLACKBOARD)
}

/// What is wrong with a document that is no object.
fn no_object(document: &[u8]) -> Problem {
    if document::is_null(document) {
        Problem::Null
    } else {
        Problem::NotObject
    }
}

/// Whether the time of an item is over.
fn is_over(item: &[u8], now: i64) -> Result<bool, ShapeError> {
    Ok(expires_at(item)?.is_some_and(|at| at <= now))
}

fn expires_at(item: &[u8]) -> Result<Option<i64>, ShapeError> {
    match member(item, EXPIRES_AT)? {
        Some(at) => time(EXPIRES_AT, &at).map(Some),
        None => Ok(None),
    }
}

/// Raises unless the item is as one of this key must be; what it says.
fn check_item<'a>(key: &[u8], item: &'a [u8]) -> Result<Found<'a>, ShapeError> {
    let own_key = required(item, KEY)?;
    let own_key = as_text(KEY, &own_key)?;
    if own_key != key {
        let found = excerpt(own_key);
        return Err(ShapeError::new(KEY, Problem::NotTheKey { found }));
    }
    required(item, VALUE)?;
    let created_by = required(item, CREATED_BY)?;
    as_text(CREATED_BY, &created_by)?;
    time(CREATED_AT, &required(item, CREATED_AT)?)?;
    Ok(Found {
        item_type: label(item, TYPE, ItemType::parse, ItemType::KNOWN)?,
        created_by,
        expires_at: expires_at(item)?,
        access_level: label(item, ACCESS_LEVEL, AccessLevel::parse, AccessLevel::KNOWN)?,
        tags: tags(item)?,
    })
}

fn tags(item: &[u8]) -> Result<Vec<Cow<'_, [u8]>>, ShapeError> {
    let tags = match required(item, TAGS)? {
        Cow::Borrowed(tags) => {
            document::elements(tags).map_err(|error| ShapeError::from(error).within(TAGS))?
        }
        Cow::Owned(_) => return Err(ShapeError::new(TAGS, Problem::NotArray)),
    };
    for (place, tag) in tags.iter().enumerate() {
        if document::as_string(tag).is_none() {
            let error = ShapeError {
                field: String::new(),
                problem: Problem::NotText,
            };
            return Err(error.within_element(place).within(TAGS));
        }
    }
    Ok(tags)
}

/// A member of an item, if it has that; `null` is none.
fn member<'a>(item: &'a [u8], name: &[u8]) -> Result<Option<Cow<'a, [u8]>>, ShapeError> {
    let found = document::member(item, name).map_err(|error| match error {
        DocumentError::NotAnObject => ShapeError {
            field: String::new(),
            problem: no_object(item),
        },
        error => error.into(),
    })?;
    match found {
        Some(value) if document::is_null(&value) => Err(ShapeError::new(name, Problem::Null)),
        found => Ok(found),
    }
}

fn required<'a>(item: &'a [u8], name: &[u8]) -> Result<Cow<'a, [u8]>, ShapeError> {
    member(item, name)?.ok_or_else(|| ShapeError::new(name, Problem::Missing))
}

fn as_text<'a>(name: &[u8], value: &'a [u8]) -> Result<&'a [u8], ShapeError> {
    document::as_string(value).ok_or_else(|| ShapeError::new(name, Problem::NotText))
}

fn time(name: &[u8], value: &[u8]) -> Result<i64, ShapeError> {
    parse_rfc3339(as_text(name, value)?).ok_or_else(|| ShapeError::new(name, Problem::NotTimestamp))
}

fn label<T>(
    item: &[u8],
    name: &[u8],
    parse: fn(&[u8]) -> Option<T>,
    known: &'static str,
) -> Result<T, ShapeError> {
    let value = required(item, name)?;
    let text = as_text(name, &value)?;
    parse(text).ok_or_else(|| {
        let found = excerpt(text);
        ShapeError::new(name, Problem::UnknownValue { found, known })
    })
}

fn text(text: &str) -> Vec<u8> {
    document::string(text.as_bytes())
}

fn texts(texts: &[Vec<u8>]) -> Result<Vec<u8>, DocumentError> {
    let elements: Vec<_> = texts.iter().map(|text| document::string(text)).collect();
    document::array(&elements)
}

#[cfg(test)]
mod tests;
