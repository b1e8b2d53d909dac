//! How long a state has to live yet, as whoever writes it into Redis must say.

use std::time::Duration;

/// How long a state has to live yet, `None` for as long as its class says: `left`, in milliseconds, is what the row
/// of the state says by PostgreSQL's clock, and the row has the version `of_row`. No other clock is looked at: Redis
/// is given this as a time from now.
///
/// A state may end while it is read, after its answer was decided: it lives a millisecond more. The row of a `behind`
/// class may be older than the state, and its end be over; what the state's own end is then comes with the message
/// that tells of it.
#[must_use]
pub fn time_left(version: i64, of_row: Option<i64>, left: Option<f64>) -> Option<Duration> {
    const LEAST: f64 = 1.0;
    let left = match of_row == Some(version) {
        true => left.map(|left| left.max(LEAST)),
        false => left.filter(|left| *left > 0.0),
    };
    left.map(|left| Duration::from_secs_f64((left / 1000.0).min(1e10)))
}

#[cfg(test)]
mod tests {
    use super::time_left;
    use std::time::Duration;

    #[test]
    fn a_state_that_ends_while_it_is_read_does_not_live_as_long_as_its_class_says() {
        let millis = |millis| Some(Duration::from_millis(millis));
        assert_eq!(time_left(3, Some(3), Some(-20.0)), millis(1));
        assert_eq!(time_left(3, Some(3), Some(0.0)), millis(1));
        assert_eq!(time_left(3, Some(3), Some(1500.0)), millis(1500));
        assert_eq!(time_left(3, Some(3), None), None);
        // An older row of a behind class says nothing of the state when its end is over.
        assert_eq!(time_left(4, Some(3), Some(-20.0)), None);
        assert_eq!(time_left(4, Some(3), Some(1500.0)), millis(1500));
        assert_eq!(time_left(4, None, None), None);
        assert_eq!(
            time_left(3, Some(3), Some(f64::MAX)),
            Some(Duration::from_secs(10_000_000_000))
        );
    }
}
