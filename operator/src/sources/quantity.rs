//! Quantities and values of metrics APIs in thousandths, as `resource.Quantity.MilliValue` gives them.

use catamaran_autoscale::quantity;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::failure::{Failure, shorten};

/// A quantity in thousandths: of a core, of a byte, of the metric's unit. What is finer is rounded away from zero; what
/// is beyond 2^63 thousandths is the largest number there is, so that it never scales in (the HPA takes it for 0).
///
/// Errors: it is no quantity.
pub(super) fn milli(quantity: &Quantity) -> Result<i64, Failure> {
    quantity::milli(quantity).map_err(|_| {
        Failure::Answered(format!("{:?} is not a quantity that can be computed with", shorten(&quantity.0)))
    })
}

/// A floating-point value in thousandths, by the same rules: the shortest decimal that stands for it counts.
///
/// Errors: it is not finite.
pub(super) fn milli_of_float(value: f64) -> Result<i64, Failure> {
    if !value.is_finite() {
        return Err(Failure::Answered(format!("the value is {value}, which nothing can be computed with")));
    }
    milli(&Quantity(value.to_string()))
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
            ("9223372036854775808m", Some(i64::MAX)),
            ("9Ei", Some(i64::MAX)),
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
    fn floats_are_rounded_away_from_zero_or_refused() {
        for (value, expected) in [
            (0.0, Some(0)),
            (0.29, Some(290)),
            (1.0004, Some(1001)),
            (0.0004, Some(1)),
            (-0.0004, Some(-1)),
            (1e-300, Some(1)),
            (1.0005, Some(1001)),
            (-2.5, Some(-2500)),
            (9.2e15, Some(9_200_000_000_000_000_000)),
            (9.3e15, Some(i64::MAX)),
            (-9.3e15, Some(-i64::MAX)),
            (f64::MAX, Some(i64::MAX)),
            (f64::NAN, None),
            (f64::INFINITY, None),
            (f64::NEG_INFINITY, None),
        ] {
            assert_eq!(milli_of_float(value).ok(), expected, "{value}");
        }
    }
}
