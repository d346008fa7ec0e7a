//! Numbers as the HPA computes them: Go's conversions on amd64, and instants that end at the limits of what jiff can hold.
//!
//! Go leaves a conversion of a float beyond the range of the integer to the machine. On amd64 the result is the smallest integer;
//! the controller relies on it nowhere, and what it then decides is bounded by `minReplicas`. Sums wrap around, as in Go.

use jiff::{SignedDuration, Timestamp};

/// `int32(x)`: the fraction is cut off; what does not fit, and NaN, is the smallest integer.
#[must_use]
pub(super) fn to_i32(x: f64) -> i32 {
    // Rust's cast cuts off the fraction as well; it differs in that it saturates.
    if x > f64::from(i32::MIN) - 1.0 && x < f64::from(i32::MAX) + 1.0 { x as i32 } else { i32::MIN }
}

/// `int64(x)`, in the same way.
#[must_use]
pub(super) fn to_i64(x: f64) -> i64 {
    /// 2^63.
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if (-LIMIT..LIMIT).contains(&x) { x as i64 } else { i64::MIN }
}

/// `int32(math.Ceil(x))`.
#[must_use]
pub(super) fn ceil_i32(x: f64) -> i32 {
    to_i32(x.ceil())
}

/// `int32(x)` for an integer: the lower 32 bits.
#[must_use]
pub(super) fn low_i32(x: i64) -> i32 {
    x as i32
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
    fn floats_become_integers_as_in_go() {
        for (x, wanted) in [
            (0.0, 0),
            (2.9, 2),
            (-2.9, -2),
            (2_147_483_647.5, i32::MAX),
            (2_147_483_648.0, i32::MIN),
            (-2_147_483_648.9, i32::MIN),
            (-2_147_483_649.0, i32::MIN),
            (f64::NAN, i32::MIN),
            (f64::INFINITY, i32::MIN),
            (f64::NEG_INFINITY, i32::MIN),
        ] {
            assert_eq!(to_i32(x), wanted, "{x}");
        }
        assert_eq!(ceil_i32(2.000_000_000_1), 3);
        assert_eq!(ceil_i32(2_147_483_647.5), i32::MIN);
        for (x, wanted) in [(9.3e18, i64::MIN), (9.2e18, 9_200_000_000_000_000_000), (f64::NAN, i64::MIN)] {
            assert_eq!(to_i64(x), wanted, "{x}");
        }
        assert_eq!(low_i32(4_294_967_297), 1);
    }

    #[test]
    fn instants_end_where_jiff_does() {
        assert_eq!(later(Timestamp::MAX, SignedDuration::from_secs(1)), Timestamp::MAX);
        assert_eq!(seconds_before(Timestamp::MIN, 1), Timestamp::MIN);
        assert_eq!(seconds_before(Timestamp::UNIX_EPOCH, 1).as_second(), -1);
    }
}
