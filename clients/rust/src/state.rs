//! A state as it was read, and the typed value that was made of it.

use crate::{Result, Tier};
use serde::de::DeserializeOwned;
use std::any::Any;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// A state as it was read.
#[derive(Debug)]
pub struct State {
    /// Its version, to be given as `expected_version` to a write.
    pub version: i64,
    /// The document, JSON.
    pub document: String,
    /// The value of the type that was asked for first: a hit of the near cache parses nothing.
    typed: OnceLock<Arc<dyn Any + Send + Sync>>,
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        (self.version, &self.document) == (other.version, &other.document)
    }
}

impl Eq for State {}

impl State {
    pub(crate) fn new(version: i64, document: String) -> Self {
        Self {
            version,
            document,
            typed: OnceLock::new(),
        }
    }

    /// The document as a value. Of the type that was asked for first, it is made once for all callers; of others,
    /// each time.
    pub fn value<T: DeserializeOwned + Send + Sync + 'static>(&self) -> Result<Arc<T>> {
        if let Some(typed) = self.typed.get()
            && let Ok(value) = typed.clone().downcast::<T>()
        {
            return Ok(value);
        }
        let value: Arc<T> = Arc::new(serde_json::from_str(&self.document)?);
        // Somebody may have been faster, with this type or another one; either is as good.
        let _ = self.typed.set(value.clone());
        Ok(value)
    }
}

/// A document as a value of the application's own type, shared with whoever else has read it.
#[derive(Debug)]
pub struct Document<T> {
    /// Its version, to be given as `expected_version` to a write.
    pub version: i64,
    value: Arc<T>,
}

impl<T> Document<T> {
    /// The value, to be kept.
    pub fn into_value(self) -> Arc<T> {
        self.value
    }
}

impl<T> Clone for Document<T> {
    fn clone(&self) -> Self {
        Self {
            version: self.version,
            value: self.value.clone(),
        }
    }
}

impl<T> Deref for Document<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// The answer to a read, and where it came from.
#[derive(Debug)]
pub struct Answer<T> {
    /// The document; `None` if there is no such state.
    pub document: Option<Document<T>>,
    /// Who answered.
    pub tier: Tier,
    /// For how long nobody has proven that the near cache hears of every change; `None` if that is proven, or the
    /// answer came from elsewhere. [`crate::WhileDown`] says whether there are such answers.
    pub unproven: Option<Duration>,
}

/// What a read has found, before it has a type.
pub(crate) struct Found {
    pub known: Option<Arc<State>>,
    pub tier: Tier,
    pub unproven: Option<Duration>,
}

impl Found {
    pub fn typed<T: DeserializeOwned + Send + Sync + 'static>(self) -> Result<Answer<T>> {
        let document = match self.known {
            Some(state) => Some(document(&state)?),
            None => None,
        };
        Ok(Answer {
            document,
            tier: self.tier,
            unproven: self.unproven,
        })
    }
}

pub(crate) fn document<T: DeserializeOwned + Send + Sync + 'static>(
    state: &State,
) -> Result<Document<T>> {
    Ok(Document {
        version: state.version,
        value: state.value()?,
    })
}
