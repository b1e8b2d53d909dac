//! The cursor of `state_changes`: which transactions a subscriber has heard of.
//!
//! ```text
//! 2-<system>-<timeline>-<database>-<incarnation>-<run>-<start>-<position>-<xmin>-<xmax>-<in progress, …>
//! ```
//!
//! All numbers are hexadecimal; the ids in progress are given as their distances from `xmin`, ascending. The
//! first number is the version of the format. Transaction ids mean something only where they were given out,
//! hence the names of the server, of its timeline, of the installation, and of the start of the server with the
//! place in the WAL: two histories that begin alike (a data directory and its copy) differ in these.

use self::Unread::Malformed;
use state_cache_memory::{Grow, OutOfMemory};
use std::fmt;

/// Version of the format.
const VERSION: u64 = 2;

/// The most ids in progress that a cursor is taken to hold: every process of the largest possible server
/// (2^18 - 1) with all the subtransactions (64) that a snapshot lists of each. A text with more is no cursor.
const MAX_IN_PROGRESS: usize = ((1 << 18) - 1) * 65;

/// Where a cursor was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Home {
    /// The server's system identifier; a standby has that of its primary.
    pub system: u64,
    /// Its timeline: after a promotion ids are given out again that a lost transaction had.
    pub timeline: u32,
    /// OID of the database.
    pub database: u32,
    /// Which installation of the extension.
    pub incarnation: u64,
    /// Which run of the server, 0 where every change that is acknowledged outlives a crash.
    pub run: u64,
    /// Which start of the server: no two have the same.
    pub start: u64,
}

/// A cursor: a snapshot, in full transaction ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Where it was taken.
    pub home: Home,
    /// Place in the WAL before which all lies that the snapshot sees.
    pub position: u64,
    /// Every transaction below has ended before the cursor was taken.
    xmin: u64,
    /// No transaction from here on has.
    xmax: u64,
    /// Those in between that had not, subtransactions included; ascending.
    in_progress: Vec<u64>,
}

/// Why a text gives no cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// It is none.
    Malformed,
    /// There is no memory for it.
    OutOfMemory(OutOfMemory),
}

impl Cursor {
    /// The cursor of a snapshot: its bounds, and all ids in between that are in progress. Ids outside the
    /// bounds are of no interest.
    #[must_use]
    pub fn new(home: Home, position: u64, xmin: u64, xmax: u64, mut in_progress: Vec<u64>) -> Self {
        let xmin = xmin.min(xmax);
        in_progress.retain(|xid| (xmin..xmax).contains(xid));
        in_progress.sort_unstable();
        in_progress.dedup();
        Self {
            home,
            position,
            xmin,
            xmax,
            in_progress,
        }
    }

    /// Whether a change by this transaction, given by its full id, was visible when the cursor was taken; asked
    /// of a transaction that has committed.
    #[must_use]
    pub fn sees(&self, xid: u64) -> bool {
        xid < self.xmin || (xid < self.xmax && self.in_progress.binary_search(&xid).is_err())
    }

    /// Whether it has seen no transaction from this one on.
    #[must_use]
    pub fn has_seen_none_from(&self, xid: u64) -> bool {
        self.xmax <= xid
    }

    /// Whether it sees every transaction up to this one.
    #[must_use]
    pub fn sees_all_up_to(&self, xid: u64) -> bool {
        xid < self.xmin
    }

    /// Whether no transaction can have had an id that the cursor has heard of, where `next` is given out next:
    /// then the server was set back to an earlier time.
    #[must_use]
    pub fn is_ahead_of(&self, next: u64) -> bool {
        self.xmax > next
    }

    /// Reads a cursor from its text.
    ///
    /// # Errors
    ///
    /// [`Malformed`] for anything that [`fmt::Display`] does not write; [`Unread::OutOfMemory`].
    pub fn parse(text: &[u8]) -> Result<Self, Unread> {
        let mut fields = text.split(|byte| *byte == b'-');
        let mut number = || hexadecimal(fields.next().ok_or(Malformed)?);
        if number()? != VERSION {
            return Err(Malformed);
        }
        let home = Home {
            system: number()?,
            timeline: number()?.try_into().map_err(|_| Malformed)?,
            database: number()?.try_into().map_err(|_| Malformed)?,
            incarnation: number()?,
            run: number()?,
            start: number()?,
        };
        let position = number()?;
        let (xmin, xmax) = (number()?, number()?);
        let list = fields.next().ok_or(Malformed)?;
        if fields.next().is_some() || xmin > xmax {
            return Err(Malformed);
        }
        let mut in_progress = Vec::new();
        if !list.is_empty() {
            for distance in list.split(|byte| *byte == b'.') {
                let xid = xmin.checked_add(hexadecimal(distance)?).ok_or(Malformed)?;
                if xid >= xmax
                    || in_progress.last().is_some_and(|last| *last >= xid)
                    || in_progress.len() == MAX_IN_PROGRESS
                {
                    return Err(Malformed);
                }
                in_progress.try_push(xid).map_err(Unread::OutOfMemory)?;
            }
        }
        Ok(Self {
            home,
            position,
            xmin,
            xmax,
            in_progress,
        })
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Home {
            system,
            timeline,
            database,
            incarnation,
            run,
            start,
        } = self.home;
        write!(
            f,
            "{VERSION:x}-{system:x}-{timeline:x}-{database:x}-{incarnation:x}-{run:x}-{start:x}-{:x}-{:x}-{:x}-",
            self.position, self.xmin, self.xmax
        )?;
        for (n, xid) in self.in_progress.iter().enumerate() {
            let separator = if n == 0 { "" } else { "." };
            write!(f, "{separator}{:x}", xid - self.xmin)?;
        }
        Ok(())
    }
}

/// A number of 1 to 16 hexadecimal digits, written as this module writes it.
fn hexadecimal(digits: &[u8]) -> Result<u64, Unread> {
    if !(1..=16).contains(&digits.len()) || (digits.len() > 1 && digits[0] == b'0') {
        return Err(Malformed);
    }
    digits.iter().try_fold(0, |value, digit| match digit {
        b'0'..=b'9' => Ok(value << 4 | u64::from(digit - b'0')),
        b'a'..=b'f' => Ok(value << 4 | u64::from(digit - b'a' + 10)),
        _ => Err(Malformed),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const HOME: Home = Home {
        system: u64::MAX,
        timeline: 3,
        database: 5,
        incarnation: 0x1234_5678_9abc_def0,
        run: 7,
        start: 0xfedc,
    };

    fn cursor(xmin: u64, xmax: u64, in_progress: &[u64]) -> Cursor {
        Cursor::new(HOME, 0x2a_0000_0028, xmin, xmax, in_progress.to_vec())
    }

    #[test]
    fn it_sees_what_had_ended() {
        let cursor = cursor(10, 20, &[17, 12, 10]);
        let seen: Vec<u64> = (8..22).filter(|xid| cursor.sees(*xid)).collect();
        assert_eq!(seen, [8, 9, 11, 13, 14, 15, 16, 18, 19]);
        assert!(cursor.sees_all_up_to(9) && !cursor.sees_all_up_to(10));
    }

    #[test]
    fn equal_bounds_see_nothing_from_there_on() {
        let cursor = cursor(10, 10, &[12]);
        assert!(cursor.sees(9) && !cursor.sees(10) && !cursor.sees(11));
    }

    #[test]
    fn a_bound_lowered_below_xmin_lowers_xmin() {
        let cursor = cursor(10, 7, &[12]);
        assert!(cursor.sees(6) && !cursor.sees(7) && !cursor.sees(8));
    }

    #[test]
    fn it_is_ahead_of_a_server_that_was_set_back() {
        let cursor = cursor(10, 20, &[]);
        assert!(cursor.is_ahead_of(19) && !cursor.is_ahead_of(20));
    }

    #[test]
    fn the_text_says_all_of_it() {
        for original in [
            cursor(3, 3, &[]),
            cursor(3, 4, &[3]),
            cursor(1 << 40, (1 << 40) + 500, &[1 << 40, (1 << 40) + 499]),
            cursor(u64::MAX - 2, u64::MAX, &[u64::MAX - 1]),
        ] {
            assert_eq!(Cursor::parse(original.to_string().as_bytes()), Ok(original));
        }
        assert_eq!(
            cursor(10, 20, &[12, 17]).to_string(),
            "2-ffffffffffffffff-3-5-123456789abcdef0-7-fedc-2a00000028-a-14-2.7"
        );
    }

    #[test]
    fn nothing_else_is_a_cursor() {
        let good = "2-ff-3-5-12-0-b-c-a-14-2.7";
        assert!(Cursor::parse(good.as_bytes()).is_ok());
        for bad in [
            "",
            "-",
            "1",
            "1-ff-3-5-12-0-b-c-a-14-2.7",
            "2-ff-3-5-12-0-b-c-a-14",
            "2-ff-3-5-12-0-b-c-a-14-2.7-",
            "2-ff-3-5-12-0-b-c-a-14-2.7-1",
            "2-ff-3-5-12-0-b-c-a-14-2.2",
            "2-ff-3-5-12-0-b-c-a-14-7.2",
            "2-ff-3-5-12-0-b-c-a-14-2.",
            "2-ff-3-5-12-0-b-c-a-14-.2",
            "2-ff-3-5-12-0-b-c-a-14-a",
            "2-ff-3-5-12-0-b-c-14-a-",
            "2-ff-3-5-12-0-b-c-a-14-02",
            "2-FF-3-5-12-0-b-c-a-14-2.7",
            " 2-ff-3-5-12-0-b-c-a-14-2.7",
            "2-ff-3-5-12-0-b-c-a-14-2.7\n",
            "2-ff-100000000-5-12-0-b-c-a-14-",
            "2-10000000000000000-3-5-12-0-b-c-a-14-",
            "2-ff-3-5-12-0-b-c-ffffffffffffffff-ffffffffffffffff-1",
            "2--3-5-12-0-b-c-a-14-",
            "1-ff-3-5-12-0-a-14-2.7",
            "2-ff-3-5-12-0-a-14-2.7",
        ] {
            assert_eq!(Cursor::parse(bad.as_bytes()), Err(Malformed), "{bad}");
        }
    }

    /// Every text that is accepted is the one that the cursor writes.
    #[test]
    fn a_changed_byte_is_refused_or_another_cursor() {
        let good = b"2-ff-3-5-12-0-b-c-a-14-2.7".to_vec();
        for at in 0..good.len() {
            for byte in 0..=255 {
                let mut text = good.clone();
                text[at] = byte;
                if let Ok(cursor) = Cursor::parse(&text) {
                    assert_eq!(cursor.to_string().as_bytes(), text);
                }
            }
        }
    }
}
