//! From exact sums to counts: the one place where a number is made to fit.
//!
//! The HPA leaves that to Go: sums wrap around, and a conversion of a float beyond the range of the integer is the
//! machine's (on amd64 the smallest integer). So a vast load can become a count below zero, and `minReplicas`. Here
//! what does not fit is the nearest number that does: a vast load asks for the most. `docs/migrate-from-hpa.md` lists
//! what comes out differently.

use jiff::{SignedDuration, Timestamp};

/// The whole number of a float, its fraction cut off; NaN is 0.
#[must_use]
pub(super) fn to_i32(x: f64) -> i32 {
    // Rust's cast saturates, unlike Go's.
    x as i32
}

/// The whole number at or above a float; NaN is 0.
#[must_use]
pub(super) fn ceil_i32(x: f64) -> i32 {
    to_i32(x.ceil())
}

/// `to_i32` for 64 bits, rounded up.
#[must_use]
pub(super) fn ceil_i64(x: f64) -> i64 {
    x.ceil() as i64
}

/// An exact sum as a value.
#[must_use]
pub(super) fn fit_i64(sum: i128) -> i64 {
    i64::try_from(sum).unwrap_or(if sum > 0 { i64::MAX } else { i64::MIN })
}

/// An exact number as a count or percentage.
#[must_use]
pub(super) fn fit_i32(number: i128) -> i32 {
    i32::try_from(number).unwrap_or(if number > 0 { i32::MAX } else { i32::MIN })
}

/// How many times the target a usage is. Nobody uses less than nothing.
#[must_use]
pub(super) fn ratio(usage: i128, target: i128) -> f64 {
    (usage as f64 / target as f64).max(0.0)
}

/// `sum / parts`, cut off as the HPA does it, but above 0 when the sum is; the sum itself where there are no parts.
#[must_use]
pub(super) fn quotient(sum: i128, parts: i128) -> i128 {
    match sum.checked_div(parts) {
        Some(0) if sum > 0 && parts > 0 => 1,
        Some(quotient) => quotient,
        None => sum,
    }
}

/// A number of things, as the HPA counts them.
#[must_use]
pub(super) fn count(things: usize) -> i64 {
    i64::try_from(things).unwrap_or(i64::MAX)
}

/// The instant `by` later; the last instant there is, where that is later still.
#[must_use]
pub(super) fn later(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.checked_add(by).unwrap_or(if by.is_negative() { Timestamp::MIN } else { Timestamp::MAX })
}

/// The instant so many seconds earlier.
#[must_use]
pub(super) fn seconds_before(at: Timestamp, seconds: u32) -> Timestamp {
    later(at, SignedDuration::from_secs(-i64::from(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_the_nearest_that_does() {
        for (x, wanted) in [
            (0.0, 0),
            (2.9, 2),
            (-2.9, -2),
            (2_147_483_647.5, i32::MAX),
            (2_147_483_648.0, i32::MAX),
            (-2_147_483_649.0, i32::MIN),
            (f64::NAN, 0),
            (f64::INFINITY, i32::MAX),
            (f64::NEG_INFINITY, i32::MIN),
        ] {
            assert_eq!(to_i32(x), wanted, "{x}");
        }
        assert_eq!(ceil_i32(2.000_000_000_1), 3);
        assert_eq!(ceil_i32(2_147_483_647.5), i32::MAX);
        for (x, wanted) in [(9.3e18, i64::MAX), (9.2e18, 9_200_000_000_000_000_000), (0.2, 1), (f64::NAN, 0)] {
            assert_eq!(ceil_i64(x), wanted, "{x}");
        }
        assert_eq!((fit_i32(1 << 40), fit_i32(-(1 << 40)), fit_i32(7)), (i32::MAX, i32::MIN, 7));
        assert_eq!((fit_i64(1 << 80), fit_i64(-(1 << 80)), fit_i64(7)), (i64::MAX, i64::MIN, 7));
        assert_eq!((quotient(7, 2), quotient(1, 3), quotient(0, 3), quotient(-1, 3), quotient(5, 0)), (3, 1, 0, 0, 5));
        assert_eq!((ratio(-5, 10), ratio(0, 10), ratio(25, 10)), (0.0, 0.0, 2.5));
    }

    #[test]
    fn instants_end_where_jiff_does() {
        assert_eq!(later(Timestamp::MAX, SignedDuration::from_secs(1)), Timestamp::MAX);
        assert_eq!(seconds_before(Timestamp::MIN, 1), Timestamp::MIN);
        assert_eq!(seconds_before(Timestamp::UNIX_EPOCH, 1).as_second(), -1);
    }
}
