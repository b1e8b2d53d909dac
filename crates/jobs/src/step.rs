//! Which status may follow which.

use crate::status::Status;

/// What an allowed change of a task's status comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// The status after it. It is not the one that was asked for where the attempts are used up.
    pub to: Status,
    /// How often the task was started, after it.
    pub attempts: i32,
    /// Whether the task was to be tried again and may not be: it has failed.
    pub exhausted: bool,
}

/// A change that is not allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// The status that the task has.
    pub from: Status,
    /// The status that it was to have.
    pub to: Status,
}

/// What becomes of a task that has this status and was started so often, when it is to have another status; `None`
/// where it has that status already.
///
/// A task that waits may become anything. One that runs may end, or wait again to be tried once more, unless it was
/// started `max_attempts` times: then it has failed. A task that has ended stays as it is.
///
/// # Errors
/// [`Refused`]
pub fn step(
    from: Status,
    attempts: i32,
    to: Status,
    max_attempts: i32,
) -> Result<Option<Step>, Refused> {
    let plain = |to| {
        let exhausted = false;
        Ok(Some(Step {
            to,
            attempts,
            exhausted,
        }))
    };
    match (from, to) {
        _ if from == to => Ok(None),
        (Status::Completed | Status::Failed | Status::Cancelled, _) => Err(Refused { from, to }),
        (Status::Pending, Status::Running) => Ok(Some(Step {
            to,
            attempts: attempts.saturating_add(1),
            exhausted: false,
        })),
        (Status::Running, Status::Pending) if attempts >= max_attempts => Ok(Some(Step {
            to: Status::Failed,
            attempts,
            exhausted: true,
        })),
        (Status::Pending | Status::Running, _) => plain(to),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// The table of the contract, written out once more by hand.
    #[test]
    fn every_pair_of_statuses_is_allowed_or_refused_as_the_contract_says() {
        use Status::{Cancelled, Completed, Failed, Pending, Running};
        let allowed = [
            (Pending, Running),
            (Pending, Completed),
            (Pending, Failed),
            (Pending, Cancelled),
            (Running, Completed),
            (Running, Failed),
            (Running, Cancelled),
            (Running, Pending),
        ];
        for &from in Status::ALL {
            for &to in Status::ALL {
                let found = step(from, 0, to, 3);
                match (from == to, allowed.contains(&(from, to))) {
                    (true, _) => assert_eq!(found, Ok(None), "{from:?} again"),
                    (false, true) => {
                        assert_eq!(found.unwrap().unwrap().to, to, "{from:?} to {to:?}");
                    }
                    (false, false) => assert_eq!(found, Err(Refused { from, to })),
                }
            }
        }
    }

    #[test]
    fn a_start_is_an_attempt_and_what_exceeds_them_has_failed() {
        let mut attempts = 0;
        for attempt in 1..=3 {
            let started = step(Status::Pending, attempts, Status::Running, 3)
                .unwrap()
                .unwrap();
            assert_eq!((started.to, started.attempts), (Status::Running, attempt));
            attempts = started.attempts;
            let again = step(Status::Running, attempts, Status::Pending, 3)
                .unwrap()
                .unwrap();
            let is_last = attempt == 3;
            let expected = if is_last {
                Status::Failed
            } else {
                Status::Pending
            };
            assert_eq!(
                again,
                Step {
                    to: expected,
                    attempts,
                    exhausted: is_last
                }
            );
        }
    }
}
