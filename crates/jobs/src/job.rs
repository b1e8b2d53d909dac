//! The document of a job: `attributes`, `summary`, `created_at`, and `completed_at` or `cancelled_at` where it is.

use crate::counts::{Counts, Summary};
use crate::error::JobShape;
use crate::read::max_attempts;
use crate::status::Status;
use state_cache_document::{self as document, Encoding};
use state_cache_memory::owned;
use std::borrow::Cow;

const ATTRIBUTES: &str = "attributes";
const SUMMARY: &str = "summary";
const CREATED_AT: &str = "created_at";
const COMPLETED_AT: &str = "completed_at";
const CANCELLED_AT: &str = "cancelled_at";

/// The document of a job, looked at.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    document: &'a [u8],
    /// How many tasks it says it has.
    pub counts: Counts,
}

impl<'a> Job<'a> {
    /// The members that only the functions of jobs write.
    pub const COUNTED: &'static [&'static str] = &[SUMMARY, CREATED_AT, COMPLETED_AT, CANCELLED_AT];

    /// Opens a document.
    ///
    /// # Errors
    /// [`JobShape::Field`] where it is not that of a job.
    pub fn open(document: &'a [u8]) -> Result<Self, JobShape> {
        const WRONG: JobShape = JobShape::Field {
            field: SUMMARY,
            must_be: "an object of counts",
        };
        if !document::is_object(document) {
            return Err(JobShape::Field {
                field: "the document",
                must_be: "an object",
            });
        }
        let summary = document::member(document, SUMMARY.as_bytes())?.ok_or(WRONG)?;
        if !document::is_object(&summary) {
            return Err(WRONG);
        }
        let mut counts = Counts::default();
        for &status in Status::ALL {
            let count = document::member(&summary, status.name().as_bytes())?;
            let count = count.and_then(|count| document::as_integer(&count));
            let count = count.filter(|count| *count >= 0).ok_or(WRONG)?;
            counts.add(status, count);
        }
        Ok(Self { document, counts })
    }

    /// When the job of a document was created, as a document; empty where the document does not say so.
    ///
    /// # Errors
    /// Where the document is damaged.
    pub fn created_at(document: &[u8]) -> Result<Vec<u8>, JobShape> {
        if !document::is_object(document) {
            return Ok(Vec::new());
        }
        let created_at = document::member(document, CREATED_AT.as_bytes())?;
        Ok(created_at.map(owned).transpose()?.unwrap_or_default())
    }

    /// What the caller has said of the job.
    ///
    /// # Errors
    /// Where the document is damaged, or has no attributes.
    pub fn attributes(&self) -> Result<Cow<'a, [u8]>, JobShape> {
        let attributes = document::member(self.document, ATTRIBUTES.as_bytes())?;
        attributes
            .filter(|it| document::is_object(it))
            .ok_or(JobShape::Field {
                field: ATTRIBUTES,
                must_be: "an object",
            })
    }

    /// How often a task of the job may be started.
    ///
    /// # Errors
    /// Where the document does not say so as a number.
    pub fn max_attempts(&self) -> Result<i32, JobShape> {
        max_attempts(&self.attributes()?).ok_or(JobShape::Field {
            field: "attributes.max_attempts",
            must_be: "a whole number above 0",
        })
    }

    /// Whether the job was cancelled.
    ///
    /// # Errors
    /// Where the document is damaged.
    pub fn is_cancelled(&self) -> Result<bool, JobShape> {
        Ok(document::member(self.document, CANCELLED_AT.as_bytes())?.is_some())
    }

    /// Whether nothing is to be done any more: all tasks have ended, or the job was cancelled.
    ///
    /// # Errors
    /// Where the document is damaged.
    pub fn has_ended(&self) -> Result<bool, JobShape> {
        Ok(self.counts.is_complete() || self.is_cancelled()?)
    }

    /// Whether the document says of itself, beside the counts, what follows from them.
    ///
    /// # Errors
    /// Where the document is damaged.
    pub fn says_so(&self) -> Result<bool, JobShape> {
        let Some(summary) = document::member(self.document, SUMMARY.as_bytes())? else {
            return Ok(false);
        };
        let completed_at = document::member(self.document, COMPLETED_AT.as_bytes())?;
        let agrees = completed_at.is_some() == self.counts.is_complete();
        Ok(agrees && *summary == self.counts.document()?)
    }
}

impl Counts {
    /// The summary, as a document.
    ///
    /// # Errors
    /// For want of memory.
    pub fn document(&self) -> Result<Vec<u8>, JobShape> {
        let Summary {
            total,
            pending,
            running,
            completed,
            failed,
            cancelled,
            is_complete,
        } = self.summary();
        let text = state_cache_memory::format(format_args!(
            "{{\"total\":{total},\"pending\":{pending},\"running\":{running},\"completed\":{completed},\
             \"failed\":{failed},\"cancelled\":{cancelled},\"is_complete\":{is_complete}}}"
        ))?;
        let read = document::from_text(text.as_bytes(), Encoding::Utf8)?;
        // Plain numbers are read here, and never left to the server.
        read.ok_or(JobShape::Document(document::DocumentError::Damaged))
    }
}

/// A change of a job's document. It can be made again upon another document, if others were faster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The job begins, with these attributes and tasks.
    Create {
        /// An object.
        attributes: Vec<u8>,
        /// Its tasks.
        tasks: Counts,
    },
    /// Tasks have come to it, this many.
    Add(Counts),
    /// Tasks have changed their status, or gone: so many more of each there are than before.
    Count(Counts),
    /// All tasks that had not ended were cancelled, and the job takes no more.
    Cancel(Counts),
    /// Somebody has counted its tasks.
    Recount(Counts),
}

impl Change {
    /// The document after the change. `base` is the one before it, `None` without a job; `now` is the time as text.
    ///
    /// # Errors
    /// [`JobShape`]
    pub fn apply(&self, base: Option<&[u8]>, now: &[u8]) -> Result<Vec<u8>, JobShape> {
        let base = match (self, base) {
            (Self::Create { .. }, Some(_)) => return Err(JobShape::Exists),
            (Self::Create { attributes, tasks }, None) => {
                let created = [
                    (ATTRIBUTES, attributes.clone()),
                    (CREATED_AT, document::string(now)?),
                ];
                return with_counts(&document::object(&created)?, tasks, now);
            }
            (_, None) => return Err(JobShape::Missing),
            // What is left of a job whose document somebody has replaced by hand.
            (Self::Recount(counts), Some(base)) if !document::is_object(base) => {
                let created = [
                    (ATTRIBUTES, document::object::<&[u8], &[u8]>(&[])?),
                    (CREATED_AT, document::string(now)?),
                ];
                return with_counts(&document::object(&created)?, counts, now);
            }
            (_, Some(base)) => base,
        };
        let job = match self {
            Self::Recount(counts) => return with_counts(base, counts, now),
            _ => Job::open(base)?,
        };
        let plus = |more: &Counts| job.counts.plus(more).ok_or(JobShape::Miscounted);
        match self {
            Self::Add(_) if job.is_cancelled()? => Err(JobShape::Cancelled),
            Self::Add(more) | Self::Count(more) => with_counts(base, &plus(more)?, now),
            Self::Cancel(more) => {
                let counts = plus(more)?;
                match counts.open() {
                    0 if job.is_cancelled()? => with_counts(base, &counts, now),
                    0 => {
                        let cancelled = [(CANCELLED_AT, document::string(now)?)];
                        let cancelled = document::object(&cancelled)?;
                        let base = document::update(Some(base), &cancelled)?;
                        with_counts(&base, &counts, now)
                    }
                    open => Err(JobShape::Joined { open }),
                }
            }
            // Both are done above.
            Self::Create { .. } | Self::Recount(_) => Err(JobShape::Exists),
        }
    }
}

/// The document with these counts, and with what follows from them.
fn with_counts(base: &[u8], counts: &Counts, now: &[u8]) -> Result<Vec<u8>, JobShape> {
    let completed_at = document::member(base, COMPLETED_AT.as_bytes())?;
    let summary = counts.document()?;
    let updates = match (counts.is_complete(), completed_at.is_some()) {
        (true, false) => {
            document::object(&[(SUMMARY, summary), (COMPLETED_AT, document::string(now)?)])?
        }
        _ => document::object(&[(SUMMARY, summary)])?,
    };
    let after = document::update(Some(base), &updates)?;
    match (counts.is_complete(), completed_at.is_some()) {
        (false, true) => Ok(document::without(&after, &[COMPLETED_AT.as_bytes()])?),
        _ => Ok(after),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::support::{jsonb, value};
    use serde_json::json;

    fn counts(numbers: [i64; 5]) -> Counts {
        let mut counts = Counts::default();
        for (&status, number) in Status::ALL.iter().zip(numbers) {
            counts.add(status, number);
        }
        counts
    }

    fn created(tasks: [i64; 5]) -> Vec<u8> {
        let create = Change::Create {
            attributes: jsonb(&json!({"audience": "editors"})),
            tasks: counts(tasks),
        };
        create.apply(None, b"then").unwrap()
    }

    #[test]
    fn a_new_job_says_what_it_has() {
        let document = created([2, 0, 0, 0, 0]);
        let expected = json!({
            "attributes": {"audience": "editors"},
            "created_at": "then",
            "summary": {
                "total": 2, "pending": 2, "running": 0, "completed": 0, "failed": 0, "cancelled": 0,
                "is_complete": false
            }
        });
        assert_eq!(value(&document), expected);
        // As the server writes it, byte for byte.
        assert_eq!(document, jsonb(&expected));
        let job = Job::open(&document).unwrap();
        assert_eq!(job.counts, counts([2, 0, 0, 0, 0]));
        assert_eq!(job.max_attempts(), Ok(3));
        assert_eq!(job.says_so(), Ok(true));
    }

    #[test]
    fn a_job_completes_and_goes_on_when_tasks_are_added() {
        let document = created([1, 0, 0, 0, 0]);
        let done = Change::Count(counts([-1, 0, 1, 0, 0]));
        let complete = done.apply(Some(&document), b"now").unwrap();
        assert_eq!(value(&complete)["completed_at"], "now");
        assert_eq!(value(&complete)["summary"]["is_complete"], true);
        assert!(Job::open(&complete).unwrap().has_ended().unwrap());
        let more = Change::Add(counts([1, 0, 0, 0, 0]));
        let open = more.apply(Some(&complete), b"later").unwrap();
        assert_eq!(value(&open).get("completed_at"), None);
        assert!(!Job::open(&open).unwrap().has_ended().unwrap());
    }

    #[test]
    fn a_cancelled_job_takes_no_tasks_and_leaves_none_open() {
        let document = created([2, 1, 0, 0, 0]);
        let unseen = Change::Cancel(counts([-1, -1, 0, 0, 2]));
        let joined = unseen.apply(Some(&document), b"now");
        assert_eq!(joined, Err(JobShape::Joined { open: 1 }));
        let cancel = Change::Cancel(counts([-2, -1, 0, 0, 3]));
        let cancelled = cancel.apply(Some(&document), b"now").unwrap();
        assert_eq!(value(&cancelled)["cancelled_at"], "now");
        let more = Change::Add(counts([1, 0, 0, 0, 0]));
        assert_eq!(
            more.apply(Some(&cancelled), b"now"),
            Err(JobShape::Cancelled)
        );
        let empty = Change::Cancel(Counts::default());
        let empty = empty.apply(Some(&created([0; 5])), b"now").unwrap();
        // Cancelled, and not complete: it has no tasks.
        assert!(Job::open(&empty).unwrap().has_ended().unwrap());
        assert_eq!(value(&empty)["summary"]["is_complete"], false);
    }

    #[test]
    fn what_is_no_job_is_refused() {
        let count = Change::Count(counts([1, 0, 0, 0, 0]));
        assert_eq!(count.apply(None, b""), Err(JobShape::Missing));
        let create = Change::Create {
            attributes: jsonb(&json!({})),
            tasks: Counts::default(),
        };
        assert_eq!(
            create.apply(Some(&created([0; 5])), b""),
            Err(JobShape::Exists)
        );
        for document in [
            json!([]),
            json!({}),
            json!({"summary": 7}),
            json!({"summary": {"pending": 1, "running": 1, "completed": 1, "failed": 1}}),
            json!({"summary": {"pending": -1, "running": 1, "completed": 1, "failed": 1, "cancelled": 0}}),
            json!({"summary": {"pending": 0.5, "running": 1, "completed": 1, "failed": 1, "cancelled": 0}}),
        ] {
            let refused = Job::open(&jsonb(&document)).map(|_| ());
            assert!(matches!(refused, Err(JobShape::Field { .. })), "{document}");
        }
        let counted = Change::Recount(counts([1, 0, 0, 0, 0]));
        let mended = counted.apply(Some(&jsonb(&json!([]))), b"now").unwrap();
        assert_eq!(Job::open(&mended).unwrap().counts, counts([1, 0, 0, 0, 0]));
        let fewer = Change::Count(counts([-3, 0, 0, 0, 0]));
        assert_eq!(
            fewer.apply(Some(&created([2, 0, 0, 0, 0])), b""),
            Err(JobShape::Miscounted)
        );
    }
}
