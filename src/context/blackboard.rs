//! The blackboard of a swarm: items in the document of a state of class `swarm`, which is the application's but for
//! its member `blackboard`.
//!
//! Changes are staged as [`Edit`]s and applied to whatever is there when the row is locked, so those of different
//! items never get into each other's way, and of two additions of one item the second fails. What has expired when a
//! change is made counts as gone, and goes with it. The clock is the one that decides what states have expired: it
//! stands still while a statement runs, and a query agrees with the change beside it.

use super::error::ContextError;
use super::run::unix_time;
use super::variables::{label, members};
use crate::cache::forms::Document;
use crate::cache::{StateRef, check_key_within};
use crate::call::{self, Call, sql_functions};
use crate::error::{Error, Result, text};
use crate::transaction::{self, Edit, Operation};
use crate::{catalog, sys};
use pgrx::pg_sys;
use state_cache_context::{
    AccessLevel, Item, ItemChange, ItemError, ItemFilter, ItemType, ItemUpdate, Label, ShapeError,
    has_item, select,
};
use state_cache_document::{self as document, DocumentError};
use state_cache_memory::{copy, try_collect};
use std::ffi::CStr;
use std::rc::Rc;

/// The class of swarms.
pub const SWARM: &[u8] = b"swarm";

/// The last time that a document can express: the end of the year 9999, in microseconds since 1970.
const LAST_TIME: i64 = 253_402_300_799_999_999;

/// What else an export says of the item that it becomes.
const ATTRIBUTES: &str = "type, ttl, accessLevel, tags";

/// A change of a blackboard that is staged.
struct BlackboardEdit {
    swarm: Box<[u8]>,
    change: ItemChange,
    /// When it was made, in microseconds since 1970.
    now: i64,
}

impl Edit for BlackboardEdit {
    fn apply(&self, base: Option<&[u8]>) -> Result<Vec<u8>> {
        let swarm = || text(&self.swarm);
        let item = || text(self.change.key());
        self.change
            .apply(base, self.now)
            .map_err(|error| match error {
                ItemError::Missing => ContextError::UnknownItem {
                    swarm: swarm(),
                    item: item(),
                }
                .into(),
                ItemError::Exists => ContextError::DuplicateItem {
                    swarm: swarm(),
                    item: item(),
                }
                .into(),
                ItemError::Shape(error) => shape(&self.swarm, error),
            })
    }

    fn bytes(&self) -> usize {
        self.change.bytes()
    }

    fn needs_state(&self) -> bool {
        matches!(self.change, ItemChange::Remove(_))
    }

    fn item(&self) -> Option<&[u8]> {
        Some(self.change.key())
    }
}

/// `22000`, with the field at fault.
fn shape(swarm: &[u8], error: ShapeError) -> Error {
    ContextError::SwarmShape {
        swarm: text(swarm),
        error,
    }
    .into()
}

/// The time of a change, in microseconds since 1970.
fn now() -> i64 {
    unix_time(sys::statement_timestamp())
}

/// When an item that lives so long from now on is gone; `22023` for what is not positive, or is no end.
fn expires_after(ttl: &pg_sys::Interval) -> Result<i64> {
    let at = unix_time(transaction::expires_after(ttl)?);
    if at > LAST_TIME {
        return Err(Error::argument("ttl goes beyond the year 9999"));
    }
    Ok(at)
}

/// Longest key of an item, in bytes: messages name items.
const MAX_ITEM_KEY: usize = 255;

/// `22023` unless it may be the key of an item.
pub fn check_item_key(key: &[u8]) -> Result<()> {
    check_key_within(key, MAX_ITEM_KEY)
}

fn stage(swarm: &StateRef<'_>, change: ItemChange, function: &CStr) -> Result<()> {
    let edit = BlackboardEdit {
        swarm: swarm.key.into(),
        change,
        now: now(),
    };
    transaction::apply(swarm, Operation::Edit(Rc::new(edit)), function)
}

/// Puts an item onto a blackboard, in place of one of the same key if there is one. `attributes` are as
/// [`check_attributes`] wants them.
pub fn put(
    swarm: &StateRef<'_>,
    key: &[u8],
    value: &[u8],
    created_by: &[u8],
    attributes: Option<&[u8]>,
    function: &CStr,
) -> Result<()> {
    check_item_key(key)?;
    check_value(key, value)?;
    let attributes = attributes.map(Attributes::read).transpose()?;
    let attributes = attributes.unwrap_or_default();
    let item = Item {
        key: copy(key)?,
        value: copy(value)?,
        item_type: attributes.item_type,
        created_by: copy(created_by)?,
        created_at: now(),
        expires_at: attributes.ttl.as_ref().map(expires_after).transpose()?,
        access_level: attributes.access_level,
        tags: attributes.tags,
    };
    stage(swarm, ItemChange::Put(item), function)
}

/// `22023` unless they are an object of what an item can be given: type, ttl (an interval as text), accessLevel,
/// tags.
pub fn check_attributes(attributes: &[u8]) -> Result<()> {
    let attributes = Attributes::read(attributes)?;
    attributes.ttl.as_ref().map(expires_after).transpose()?;
    Ok(())
}

/// What an export says of the item that it becomes, with what is not said.
struct Attributes {
    item_type: ItemType,
    ttl: Option<pg_sys::Interval>,
    access_level: AccessLevel,
    tags: Vec<Vec<u8>>,
}

impl Default for Attributes {
    fn default() -> Self {
        Self {
            item_type: ItemType::Data,
            ttl: None,
            access_level: AccessLevel::Group,
            tags: Vec::new(),
        }
    }
}

impl Attributes {
    fn read(attributes: &[u8]) -> Result<Self> {
        let mut read = Self::default();
        for (name, value) in members("item", attributes)? {
            let words = || {
                document::as_string(&value).ok_or_else(|| {
                    Error::argument(format!("\"{}\" of item must be a string", text(name)))
                })
            };
            match name {
                b"type" => {
                    read.item_type = word::<ItemType>("type", words()?)?;
                }
                b"accessLevel" => {
                    read.access_level = word("access level", words()?)?;
                }
                b"ttl" => read.ttl = Some(interval(words()?)?),
                b"tags" => read.tags = tags_of(&value)?,
                _ => {
                    return Err(Error::UnknownLabel {
                        what: "attribute of an item",
                        name: text(name),
                        known: ATTRIBUTES.to_owned(),
                    });
                }
            }
        }
        Ok(read)
    }
}

fn word<T: Label>(what: &'static str, name: &[u8]) -> Result<T> {
    T::parse(name).ok_or_else(|| Error::UnknownLabel {
        what,
        name: text(name),
        known: T::known(),
    })
}

/// Tags in a document.
fn tags_of(tags: &[u8]) -> Result<Vec<Vec<u8>>> {
    let no_texts = || Error::argument("\"tags\" of item must be an array of strings");
    let tags = document::elements(tags).map_err(|error| match error {
        DocumentError::OutOfMemory(refused) => refused.into(),
        _ => no_texts(),
    })?;
    let tags = tags.iter().map(|tag| document::as_string(tag));
    try_collect(tags.map(|tag| Ok(copy(tag.ok_or_else(no_texts)?)?)))
}

/// An interval as PostgreSQL reads it, which raises its own errors.
fn interval(text: &[u8]) -> Result<pg_sys::Interval> {
    let arguments = [
        Some(call::cstring_datum(text)),
        Some(pg_sys::Datum::from(pg_sys::InvalidOid)),
        Some(pg_sys::Datum::from(-1_i32)),
    ];
    // SAFETY: interval_in takes a NUL-terminated text, a type that it does not look at, and no modifier; its result
    // is an interval in the current memory context.
    unsafe {
        pgrx::direct_function_call_as_datum(pg_sys::interval_in, &arguments)
            .map(|datum| *datum.cast_mut_ptr::<pg_sys::Interval>())
            .ok_or_else(|| Error::argument("ttl is no interval"))
    }
}

fn check_value(key: &[u8], value: &[u8]) -> Result<()> {
    if document::is_null(value) {
        return Err(Error::Argument {
            message: format!("the value of item \"{}\" must not be null", text(key)),
            hint: Some("state_blackboard_remove() removes an item."),
        });
    }
    Ok(())
}

/// The swarm that a call is about.
fn swarm<'a>(call: &Call<'a>) -> Result<StateRef<'a>> {
    let key = call.required_text(0, "swarm_id")?;
    StateRef::new(&catalog::current(call.function())?, SWARM, key)
}

/// The item that a call is about.
fn item_key<'a>(call: &Call<'a>) -> Result<&'a [u8]> {
    let key = call.required_text(1, "key")?;
    check_item_key(key)?;
    Ok(key)
}

fn item_type(call: &Call<'_>, n: usize) -> Result<Option<ItemType>> {
    label::<ItemType>(call, n, "type")
}

fn access_level(call: &Call<'_>, n: usize) -> Result<Option<AccessLevel>> {
    label(call, n, "access level")
}

fn expiry(call: &Call<'_>, n: usize) -> Result<Option<i64>> {
    call.interval(n).as_ref().map(expires_after).transpose()
}

fn tags(call: &Call<'_>, n: usize) -> Result<Option<Vec<Vec<u8>>>> {
    let Some(tags) = call.text_array(n)? else {
        return Ok(None);
    };
    let tags = try_collect(tags.into_iter().map(|tag| {
        let tag = tag.ok_or_else(|| Error::argument("tags must not contain null"))?;
        Ok::<_, Error>(copy(tag)?)
    }))?;
    Ok(Some(tags))
}

sql_functions! {
    /// `state_blackboard_add(swarm_id, key, value, type, created_by, ttl, access_level, tags)`
    fn state_blackboard_add(call) {
        let swarm = swarm(call)?;
        let key = item_key(call)?;
        let value = call.required_jsonb(2, "value")?;
        check_value(key, value)?;
        let item = Item {
            key: copy(key)?,
            value: copy(value)?,
            item_type: item_type(call, 3)?.ok_or_else(|| Error::null_argument("type"))?,
            created_by: copy(call.required_text(4, "created_by")?)?,
            created_at: now(),
            expires_at: expiry(call, 5)?,
            access_level: access_level(call, 6)?.ok_or_else(|| Error::null_argument("access_level"))?,
            tags: tags(call, 7)?.ok_or_else(|| Error::null_argument("tags"))?,
        };
        stage(&swarm, ItemChange::Add(item), c"state_blackboard_add()")?;
        Ok(call::void_datum())
    }

    /// `state_blackboard_update(swarm_id, key, value, type, ttl, access_level, tags)`
    fn state_blackboard_update(call) {
        let swarm = swarm(call)?;
        let key = item_key(call)?;
        let value = call.jsonb(2);
        if let Some(value) = value {
            check_value(key, value)?;
        }
        let update = ItemUpdate {
            value: value.map(copy).transpose()?,
            item_type: item_type(call, 3)?,
            expires_at: expiry(call, 4)?,
            access_level: access_level(call, 5)?,
            tags: tags(call, 6)?,
        };
        stage(&swarm, ItemChange::Update(copy(key)?, update), c"state_blackboard_update()")?;
        Ok(call::void_datum())
    }

    /// `state_blackboard_remove(swarm_id, key)`
    fn state_blackboard_remove(call) {
        let function = c"state_blackboard_remove()";
        let swarm = swarm(call)?;
        let key = item_key(call)?;
        transaction::check_may_change(&swarm, function)?;
        let found = match transaction::read_newest(&swarm, &mut Document)?.state() {
            Some((_, document)) => {
                has_item(&document, key, now()).map_err(|error| shape(swarm.key, error))?
            }
            None => false,
        };
        // Also if there is none to be seen: one may be there by the time that this is written.
        stage(&swarm, ItemChange::Remove(copy(key)?), function)?;
        Ok(call::boolean_datum(found))
    }

    /// `state_blackboard_items(swarm_id, state, type, tag, created_by, access_level)`
    fn state_blackboard_items(call) {
        let swarm = call.required_text(0, "swarm_id")?;
        let filter = ItemFilter {
            item_type: item_type(call, 2)?,
            tag: call.text(3),
            created_by: call.text(4),
            access_level: access_level(call, 5)?,
        };
        let Some(document) = call.jsonb(1) else {
            return Ok(call.null());
        };
        let items = select(document, &filter, now()).map_err(|error| shape(swarm, error))?;
        Ok(call::varlena_datum(&items))
    }
}
