//! Tasks and updates as calls give them: arrays of objects, in binary jsonb.

use crate::DEFAULT_MAX_ATTEMPTS;
use crate::shapes::{NewTask, TaskUpdate};
use crate::status::Status;
use core::fmt;
use state_cache_document::{self as document, DocumentError};
use state_cache_memory::{Grow, OutOfMemory, copy, owned, with_capacity};
use std::borrow::Cow;

/// Longest name of a task or an agent, in bytes.
pub const MAX_NAME: usize = 255;

/// Tasks to be added.
pub type Tasks = Vec<NewTask<Vec<u8>, Vec<u8>>>;
/// Updates, in their order.
pub type Updates = Vec<TaskUpdate<Vec<u8>, Vec<u8>>>;

/// What is wrong with what a call gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Malformed {
    /// It is not an array.
    NotArray,
    /// An element is neither an object nor, where that will do, a name.
    NotTask {
        /// Its place, counted from 1.
        place: usize,
    },
    /// A field is missing, or not what it must be.
    Field {
        /// Place of the element, counted from 1.
        place: usize,
        /// The field.
        field: &'static str,
        /// What it must be.
        must_be: &'static str,
    },
    /// A field that nobody knows.
    Unknown {
        /// Place of the element, counted from 1.
        place: usize,
        /// The field.
        field: Vec<u8>,
        /// Those that are known.
        known: &'static str,
    },
    /// A status that nobody knows.
    Status {
        /// Place of the element, counted from 1.
        place: usize,
        /// Its name.
        name: Vec<u8>,
    },
    /// It cannot be read.
    Document(DocumentError),
}

impl From<DocumentError> for Malformed {
    fn from(error: DocumentError) -> Self {
        Self::Document(error)
    }
}

impl From<OutOfMemory> for Malformed {
    fn from(refused: OutOfMemory) -> Self {
        Self::Document(DocumentError::OutOfMemory(refused))
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotArray => out.write_str("it must be an array"),
            Self::NotTask { place } => write!(out, "element {place} must be an object"),
            Self::Field {
                place,
                field,
                must_be,
            } => write!(out, "\"{field}\" of element {place} must be {must_be}"),
            Self::Unknown { place, .. } => write!(out, "element {place} has a field too many"),
            Self::Status { place, .. } => write!(out, "the status of element {place} is not known"),
            Self::Document(error) => write!(out, "{error:?}"),
        }
    }
}

/// What names are to be.
const NAME: &str = "a string of 1 to 255 bytes";

/// One element of the array that a call gives.
struct Element {
    /// Counted from 1.
    place: usize,
}

impl Element {
    fn wrong(&self, field: &'static str, must_be: &'static str) -> Malformed {
        Malformed::Field {
            place: self.place,
            field,
            must_be,
        }
    }

    fn name(&self, field: &'static str, value: &[u8]) -> Result<Vec<u8>, Malformed> {
        let name = document::as_string(value).filter(|name| (1..=MAX_NAME).contains(&name.len()));
        Ok(copy(name.ok_or_else(|| self.wrong(field, NAME))?)?)
    }

    fn status(&self, value: &[u8]) -> Result<Status, Malformed> {
        let name = document::as_string(value).ok_or_else(|| self.wrong("status", "a string"))?;
        Status::parse(name).ok_or(Malformed::Status {
            place: self.place,
            name: copy(name)?,
        })
    }

    fn unknown(&self, field: &[u8], known: &'static str) -> Malformed {
        match copy(field) {
            Ok(field) => Malformed::Unknown {
                place: self.place,
                field,
                known,
            },
            Err(refused) => refused.into(),
        }
    }

    fn members<'a>(&self, element: &'a [u8]) -> Result<Vec<document::Member<'a>>, Malformed> {
        match document::members(element) {
            Err(DocumentError::NotAnObject) => Err(Malformed::NotTask { place: self.place }),
            members => Ok(members?),
        }
    }
}

/// A JSON value that is given; null is none.
fn given(value: Cow<'_, [u8]>) -> Result<Option<Vec<u8>>, Malformed> {
    match document::is_null(&value) {
        true => Ok(None),
        false => Ok(Some(owned(value)?)),
    }
}

/// The elements of an array, each with its place.
fn each<T>(
    list: &[u8],
    mut read: impl FnMut(&Element, &[u8]) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    let elements = match document::elements(list) {
        Err(DocumentError::NotAnArray) => return Err(Malformed::NotArray),
        elements => elements?,
    };
    let mut found = with_capacity(elements.len())?;
    for (number, element) in elements.iter().enumerate() {
        found.try_push(read(&Element { place: number + 1 }, element)?)?;
    }
    Ok(found)
}

/// Tasks to be added: objects of `task_id`, `agent_name`, `input`, or names alone.
///
/// # Errors
/// [`Malformed`]
pub fn new_tasks(list: &[u8]) -> Result<Tasks, Malformed> {
    const KNOWN: &str = "task_id, agent_name, input";
    each(list, |element, task| {
        if document::as_string(task).is_some() {
            let task_id = element.name("task_id", task)?;
            return Ok(NewTask {
                task_id,
                agent_name: None,
                input: None,
            });
        }
        let (mut task_id, mut agent_name, mut input) = (None, None, None);
        for (field, value) in element.members(task)? {
            match field {
                b"task_id" => task_id = Some(element.name("task_id", &value)?),
                b"agent_name" if document::is_null(&value) => {}
                b"agent_name" => agent_name = Some(element.name("agent_name", &value)?),
                b"input" => input = given(value)?,
                _ => return Err(element.unknown(field, KNOWN)),
            }
        }
        let task_id = task_id.ok_or_else(|| element.wrong("task_id", NAME))?;
        Ok(NewTask {
            task_id,
            agent_name,
            input,
        })
    })
}

/// Updates: objects of `task_id`, `status`, `result`, `error`, `token`.
///
/// # Errors
/// [`Malformed`]
pub fn updates(list: &[u8]) -> Result<Updates, Malformed> {
    const KNOWN: &str = "task_id, status, result, error, token";
    each(list, |element, update| {
        let (mut task_id, mut status) = (None, None);
        let (mut result, mut error, mut token) = (None, None, None);
        for (field, value) in element.members(update)? {
            match field {
                b"task_id" => task_id = Some(element.name("task_id", &value)?),
                b"status" => status = Some(element.status(&value)?),
                b"result" => result = given(value)?,
                b"error" => error = given(value)?,
                b"token" if document::is_null(&value) => {}
                b"token" => {
                    let number = document::as_integer(&value);
                    token = Some(number.ok_or_else(|| element.wrong("token", "a whole number"))?);
                }
                _ => return Err(element.unknown(field, KNOWN)),
            }
        }
        Ok(TaskUpdate {
            task_id: task_id.ok_or_else(|| element.wrong("task_id", NAME))?,
            status: status.ok_or_else(|| element.wrong("status", "a string"))?,
            result,
            error,
            token,
        })
    })
}

/// How often a task of a job with these attributes may be started; `None` where they say something that is no such
/// number.
#[must_use]
pub fn max_attempts(attributes: &[u8]) -> Option<i32> {
    match document::member(attributes, b"max_attempts") {
        Ok(None) => Some(DEFAULT_MAX_ATTEMPTS),
        Ok(Some(number)) => document::as_integer(&number)
            .and_then(|number| i32::try_from(number).ok())
            .filter(|number| *number >= 1),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::support::jsonb;
    use serde_json::{Value, json};

    #[test]
    fn tasks_are_objects_or_names() {
        let tasks = new_tasks(&jsonb(&json!([
            "a", {"task_id": "b", "agent_name": "writer", "input": {"n": 1}}, {"task_id": "c", "input": null}
        ])));
        let tasks = tasks.unwrap();
        let names: Vec<_> = tasks.iter().map(|task| task.task_id.as_slice()).collect();
        assert_eq!(names, [b"a", b"b", b"c"]);
        assert_eq!(tasks[1].agent_name.as_deref(), Some(b"writer".as_slice()));
        assert_eq!(
            tasks[1].input.as_deref(),
            Some(jsonb(&json!({"n": 1})).as_slice())
        );
        assert_eq!(tasks[2].input, None);
    }

    /// What serde writes for clients is what the server reads.
    #[test]
    fn the_shapes_of_clients_are_the_servers() {
        let update = TaskUpdate {
            task_id: "t".to_owned(),
            status: Status::Failed,
            result: None,
            error: Some(json!("no such page")),
            token: Some(7_000_000_000),
        };
        let written = serde_json::to_value([&update]).unwrap();
        let read = updates(&jsonb(&written)).unwrap();
        assert_eq!(read[0].task_id, b"t");
        assert_eq!(
            (read[0].status, read[0].token),
            (Status::Failed, Some(7_000_000_000))
        );
        assert_eq!(
            read[0].error.as_deref(),
            Some(jsonb(&json!("no such page")).as_slice())
        );
        let task = NewTask::<_, Value> {
            task_id: "t".to_owned(),
            agent_name: Some("writer".to_owned()),
            input: None,
        };
        let written = serde_json::to_value([&task]).unwrap();
        assert_eq!(
            new_tasks(&jsonb(&written)).unwrap()[0].agent_name,
            Some(b"writer".to_vec())
        );
        let summary: crate::Summary = serde_json::from_value(json!({
            "total": 1, "pending": 0, "running": 0, "completed": 1, "failed": 0, "cancelled": 0, "is_complete": true
        }))
        .unwrap();
        assert_eq!(crate::Counts::from(&summary).summary(), summary);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let refused = |list: Value| updates(&jsonb(&list)).unwrap_err();
        assert_eq!(refused(json!({})), Malformed::NotArray);
        assert_eq!(refused(json!("a")), Malformed::NotArray);
        let good = json!({"task_id": "a", "status": "running"});
        assert_eq!(refused(json!([good, 7])), Malformed::NotTask { place: 2 });
        let unknown = refused(json!([good, good, {"task_id": "a", "status": "done"}]));
        assert_eq!(
            unknown,
            Malformed::Status {
                place: 3,
                name: b"done".to_vec()
            }
        );
        for (list, field) in [
            (json!([{"status": "running"}]), "task_id"),
            (json!([{"task_id": "", "status": "running"}]), "task_id"),
            (
                json!([{"task_id": "x".repeat(256), "status": "running"}]),
                "task_id",
            ),
            (json!([{"task_id": 7, "status": "running"}]), "task_id"),
            (json!([{"task_id": "a"}]), "status"),
            (json!([{"task_id": "a", "status": null}]), "status"),
            (
                json!([{"task_id": "a", "status": "running", "token": 1.5}]),
                "token",
            ),
        ] {
            let refused = refused(list.clone());
            assert!(
                matches!(&refused, Malformed::Field { place: 1, field: named, .. } if *named == field),
                "{list}: {refused:?}"
            );
        }
        let many = refused(json!([{"task_id": "a", "status": "running", "stats": 1}]));
        assert!(matches!(many, Malformed::Unknown { .. }));
    }

    #[test]
    fn attempts_are_limited_by_a_number_above_zero() {
        assert_eq!(max_attempts(&jsonb(&json!({}))), Some(DEFAULT_MAX_ATTEMPTS));
        assert_eq!(max_attempts(&jsonb(&json!({"max_attempts": 7}))), Some(7));
        for wrong in [
            json!(0),
            json!(-1),
            json!(1.5),
            json!("3"),
            json!(1e12),
            json!(null),
        ] {
            assert_eq!(max_attempts(&jsonb(&json!({"max_attempts": wrong}))), None);
        }
    }
}
