//! Kubernetes quantities as whole numbers: CPU in millicores, memory in bytes.
//!
//! Source of the format: `k8s.io/apimachinery/pkg/api/resource/quantity.go`. Like it, a value finer than the unit is rounded up.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

pub use catamaran_autoscale::quantity::NotAQuantity;

/// CPU in millicores, rounded up.
///
/// # Errors
/// When the text is no quantity, or is negative or beyond 2^63.
pub fn millicores(quantity: &Quantity) -> Result<u64, NotAQuantity> {
    scaled(&quantity.0, 1000).ok_or_else(|| NotAQuantity(quantity.0.clone()))
}

/// Memory in bytes, rounded up.
///
/// # Errors
/// When the text is no quantity, or is negative or beyond 2^63.
pub fn bytes(quantity: &Quantity) -> Result<u64, NotAQuantity> {
    scaled(&quantity.0, 1).ok_or_else(|| NotAQuantity(quantity.0.clone()))
}

/// Millicores as a canonical quantity: `2` or `250m`.
#[must_use]
pub fn from_millicores(millicores: u64) -> Quantity {
    Quantity(if millicores.is_multiple_of(1000) { (millicores / 1000).to_string() } else { format!("{millicores}m") })
}

/// Bytes as a canonical quantity with the largest binary suffix that fits: `512Mi`.
#[must_use]
pub fn from_bytes(bytes: u64) -> Quantity {
    let (mut value, mut suffix) = (bytes, "");
    for next in ["Ki", "Mi", "Gi", "Ti", "Pi"] {
        if value == 0 || !value.is_multiple_of(1024) {
            break;
        }
        (value, suffix) = (value / 1024, next);
    }
    Quantity(format!("{value}{suffix}"))
}

/// The value times `unit`, rounded up to a whole number.
fn scaled(text: &str, unit: u128) -> Option<u64> {
    let unsigned = text.strip_prefix('+').unwrap_or(text);
    let number_end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(number_end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || whole.len() > 19 || fraction.len() > 12 {
        return None;
    }
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let (multiplier, divisor) = multiplier(suffix)?;
    let numerator = digits.checked_mul(multiplier)?.checked_mul(unit)?;
    let denominator = divisor.checked_mul(10u128.pow(u32::try_from(fraction.len()).ok()?))?;
    i64::try_from(numerator.div_ceil(denominator)).ok()?.try_into().ok()
}

/// What a suffix multiplies with, as a fraction.
fn multiplier(suffix: &str) -> Option<(u128, u128)> {
    Some(match suffix {
        "" => (1, 1),
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1000),
        "k" => (1000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        exponent => {
            let power: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            match power {
                0..=18 => (10u128.pow(power.unsigned_abs()), 1),
                -18..=-1 => (1, 10u128.pow(power.unsigned_abs())),
                _ => return None,
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_become_whole_numbers() {
        for (text, cpu, memory) in [
            ("250m", Some(250), Some(1)),
            ("2", Some(2000), Some(2)),
            ("0.5", Some(500), Some(1)),
            (".1", Some(100), Some(1)),
            ("1e3", Some(1_000_000), Some(1000)),
            ("1.5Gi", Some(1_610_612_736_000), Some(1_610_612_736)),
            ("1u", Some(1), Some(1)),
            ("-1", None, None),
            ("", None, None),
            ("1.2.3", None, None),
            ("12x", None, None),
            ("9999999999999999999E", None, None),
            ("1e99", None, None),
        ] {
            let quantity = Quantity(text.to_owned());
            assert_eq!(millicores(&quantity).ok(), cpu, "{text} as millicores");
            assert_eq!(bytes(&quantity).ok(), memory, "{text} as bytes");
        }
    }

    #[test]
    fn canonical_forms_read_back() {
        for (value, text) in [(250, "250m"), (2000, "2"), (0, "0"), (1, "1m")] {
            assert_eq!(from_millicores(value).0, text);
        }
        for (value, text) in [(512 << 20, "512Mi"), (1 << 30, "1Gi"), (1000, "1000"), (1536 << 20, "1536Mi"), (0, "0")]
        {
            assert_eq!(from_bytes(value).0, text);
            assert_eq!(bytes(&from_bytes(value)), Ok(value));
        }
    }
}
