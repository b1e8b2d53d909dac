//! Prices that are learned, and how right they were.

use crate::Amount;

/// Costs that a learned price is the mean of, at most.
pub const LEARNED_FROM: usize = 5;

/// Whether a cost is so far from what was expected that the price is learned anew: by more than 10 %.
pub fn is_off(expected: Amount, actual: Amount) -> bool {
    let difference = if actual > expected {
        actual - expected
    } else {
        expected - actual
    };
    difference.times(10) > expected
}

/// The price that an agent has after costs, the newest first: the mean of the last five.
pub fn learned(newest_first: &[Amount]) -> Option<Amount> {
    Amount::mean(&newest_first[..newest_first.len().min(LEARNED_FROM)])
}

/// How far costs were from what was expected: (Σ actual − Σ expected) / Σ expected, to 9 decimals, a half upwards.
/// `None` where nothing was expected.
pub fn accuracy(expected: Amount, actual: Amount) -> Option<Amount> {
    const ONE: i128 = 1_000_000_000;
    if !expected.is_positive() {
        return None;
    }
    let (by, of) = ((actual - expected).billionths(), expected.billionths());
    // Whole parts first: the product of the rest and a billion has room.
    let (whole, rest) = (by.div_euclid(of), by.rem_euclid(of));
    let fraction = match rest.checked_mul(2 * ONE) {
        Some(doubled) => doubled.saturating_add(of).div_euclid(2 * of),
        // What is so large loses nothing that 9 decimals would show.
        None => (rest / (of / ONE)).min(ONE),
    };
    Some(Amount::from_billionths(
        whole.saturating_mul(ONE).saturating_add(fraction),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_is_learned_beyond_ten_percent() {
        let amount = |units| Amount::whole(units);
        assert!(!is_off(amount(10), amount(11)));
        assert!(!is_off(amount(10), amount(9)));
        assert!(is_off(amount(10), amount(11) + Amount::from_billionths(1)));
        assert!(is_off(amount(10), amount(9) - Amount::from_billionths(1)));
        let costs: Vec<_> = [6, 5, 4, 3, 2, 1].map(Amount::whole).into();
        assert_eq!(learned(&costs), Some(amount(4)));
        assert_eq!(learned(&costs[..1]), Some(amount(6)));
        assert_eq!(learned(&[]), None);
    }

    #[test]
    fn accuracy_is_a_share_of_what_was_expected() {
        let of = |expected, actual| {
            accuracy(Amount::whole(expected), Amount::whole(actual)).map(|it| it.to_string())
        };
        assert_eq!(of(10, 12).as_deref(), Some("0.2"));
        assert_eq!(of(10, 5).as_deref(), Some("-0.5"));
        assert_eq!(of(3, 4).as_deref(), Some("0.333333333"));
        assert_eq!(of(3, 2).as_deref(), Some("-0.333333333"));
        assert_eq!(of(0, 2), None);
        let large = Amount::whole(900_000_000_000_000_000);
        assert_eq!(accuracy(large, large + large), Some(Amount::whole(1)));
    }
}
