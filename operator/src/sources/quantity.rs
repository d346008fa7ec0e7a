//! Quantities and values of metrics APIs in thousandths, as `resource.Quantity.MilliValue` gives them.

use catamaran_plan::quantity::millicores;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::failure::{Failure, shorten};

/// A quantity in thousandths: of a core, of a byte, of the metric's unit. What is finer is rounded away from zero.
///
/// Errors: it is no quantity, or beyond 2^63 thousandths. (The HPA takes one that is too large for 0; a wrong value must not scale in here.)
pub(super) fn milli(quantity: &Quantity) -> Result<i64, Failure> {
    let wrong = || Failure::Answered(format!("{:?} is not a quantity that can be computed with", shorten(&quantity.0)));
    let (sign, digits) = match quantity.0.strip_prefix('-') {
        // "-+1" is no quantity.
        Some(digits) if !digits.starts_with('+') => (-1, Quantity(digits.to_owned())),
        Some(_) => return Err(wrong()),
        None => (1, quantity.clone()),
    };
    // Thousandths of a core are thousandths of anything.
    let magnitude = millicores(&digits).map_err(|_| wrong())?;
    i64::try_from(magnitude).map(|magnitude| sign * magnitude).map_err(|_| wrong())
}

/// A floating-point value in thousandths, rounded to the nearest.
///
/// Errors: it is not finite, or beyond 2^63 thousandths.
pub(super) fn milli_of_float(value: f64) -> Result<i64, Failure> {
    if !value.is_finite() {
        return Err(Failure::Answered(format!("the value is {value}, which nothing can be computed with")));
    }
    let scaled = (value * 1000.0).round();
    // 2^63 is the first value that does not fit; `as` is exact on whole numbers below it.
    if scaled.abs() >= 9_223_372_036_854_775_808.0 {
        return Err(Failure::Answered(format!("the value {value:e} is too large to compute with")));
    }
    #[allow(clippy::cast_possible_truncation)]
    Ok(scaled as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_the_hpa_reads_them() {
        for (text, expected) in [
            ("0", Some(0)),
            ("250m", Some(250)),
            // metrics-server gives cpu in nanocores.
            ("1234567n", Some(2)),
            ("1u", Some(1)),
            ("12345Ki", Some(12_641_280_000)),
            ("1.5", Some(1500)),
            ("+2", Some(2000)),
            ("-250m", Some(-250)),
            ("-1500u", Some(-2)),
            ("3e2", Some(300_000)),
            ("1k", Some(1_000_000)),
            ("9223372036854775807m", Some(i64::MAX)),
            ("9223372036854775808m", None),
            ("9Ei", None),
            ("-+1", None),
            ("--1", None),
            ("", None),
            ("-", None),
            ("NaN", None),
        ] {
            assert_eq!(milli(&Quantity(text.to_owned())).ok(), expected, "{text}");
        }
    }

    #[test]
    fn floats_are_rounded_or_refused() {
        for (value, expected) in [
            (0.0, Some(0)),
            (0.29, Some(290)),
            (1.0004, Some(1000)),
            (1.0005, Some(1001)),
            (-2.5, Some(-2500)),
            (9.2e15, Some(9_200_000_000_000_000_000)),
            (9.3e15, None),
            (-9.3e15, None),
            (f64::MAX, None),
            (f64::NAN, None),
            (f64::INFINITY, None),
            (f64::NEG_INFINITY, None),
        ] {
            assert_eq!(milli_of_float(value).ok(), expected, "{value}");
        }
    }
}
