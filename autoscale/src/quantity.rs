//! Quantities as the HPA reads them: in thousandths, and tolerances as floats, to the last digit.
//!
//! Source: `k8s.io/apimachinery/pkg/api/resource` (`ParseQuantity`, `MilliValue`, `AsApproximateFloat64`). It keeps a quantity as an
//! integer times a power of ten where that fits, and as a decimal with nine places where not; the two round and overflow
//! differently, so both are here. `quantity` in the plan crate reads what a template asks for, where negative or vast
//! values are refused.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Why a quantity cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a quantity; write for example 250m, 2 or 512Mi")]
pub struct NotAQuantity(pub String);

/// The value in thousandths, rounded away from zero, as `Quantity.MilliValue()` has it.
///
/// # Errors
/// When the text is no quantity, or has more than some 29 digits before the point.
pub fn milli(quantity: &Quantity) -> Result<i64, NotAQuantity> {
    parse(&quantity.0).map(Amount::milli).ok_or_else(|| NotAQuantity(quantity.0.clone()))
}

/// The value as a float, as `Quantity.AsApproximateFloat64()` has it.
///
/// # Errors
/// As [`milli`].
pub fn float(quantity: &Quantity) -> Result<f64, NotAQuantity> {
    parse(&quantity.0).map(Amount::float).ok_or_else(|| NotAQuantity(quantity.0.clone()))
}

/// How apimachinery holds a quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Amount {
    /// `value * 10^scale`, with `scale >= -9`.
    Scaled { value: i64, scale: i32 },
    /// In billionths.
    Nano(i128),
}

impl Amount {
    fn milli(self) -> i64 {
        match self {
            Self::Scaled { value, scale } => match scale + 3 {
                down @ ..0 => round_away(value, down.unsigned_abs()),
                up => scale_up(value, up.unsigned_abs()),
            },
            Self::Nano(nano) => {
                let (quotient, rest) = (nano / 1_000_000, nano % 1_000_000);
                // Go takes the lower 64 bits.
                (if rest == 0 { quotient } else { quotient + 1 }) as i64
            }
        }
    }

    fn float(self) -> f64 {
        let (base, exponent) = match self {
            Self::Scaled { value, scale } => (value as f64, scale),
            Self::Nano(nano) => (nano as f64, -9),
        };
        match exponent {
            0 => base,
            // Go takes the power from a table, and 1/10^n for negative ones.
            1.. => base * power_of_ten(exponent.unsigned_abs()),
            ..0 => base * (1.0 / power_of_ten(exponent.unsigned_abs())),
        }
    }
}

/// 10^n; infinite where a float cannot hold it.
fn power_of_ten(n: u32) -> f64 {
    format!("1e{n}").parse().unwrap_or(f64::INFINITY)
}

/// `value * 10^by`. Overflow wraps for the powers that Go multiplies with in one step, and is zero for the others.
fn scale_up(value: i64, by: u32) -> i64 {
    match by {
        0 => value,
        1 | 2 | 3 | 6 | 9 => value.wrapping_mul(10_i64.pow(by)),
        _ => 10_i64.checked_pow(by).and_then(|power| value.checked_mul(power)).unwrap_or(0),
    }
}

/// `value / 10^by`, rounded away from zero.
fn round_away(value: i64, by: u32) -> i64 {
    let Some(power) = 10_i64.checked_pow(by) else { return value.signum() };
    let (quotient, rest) = (value / power, value % power);
    if rest == 0 { quotient } else { quotient + value.signum() }
}

/// What a suffix stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Suffix {
    /// A power of ten.
    Decimal(i32),
    /// A power of two.
    Binary(u32),
}

fn suffix(text: &str) -> Option<Suffix> {
    Some(match text {
        "" => Suffix::Decimal(0),
        "n" => Suffix::Decimal(-9),
        "u" => Suffix::Decimal(-6),
        "m" => Suffix::Decimal(-3),
        "k" => Suffix::Decimal(3),
        "M" => Suffix::Decimal(6),
        "G" => Suffix::Decimal(9),
        "T" => Suffix::Decimal(12),
        "P" => Suffix::Decimal(15),
        "E" => Suffix::Decimal(18),
        "Ki" => Suffix::Binary(10),
        "Mi" => Suffix::Binary(20),
        "Gi" => Suffix::Binary(30),
        "Ti" => Suffix::Binary(40),
        "Pi" => Suffix::Binary(50),
        "Ei" => Suffix::Binary(60),
        exponent => {
            let power: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            // Beyond this nothing fits any type here, and Go would compute for minutes.
            Suffix::Decimal(Some(power).filter(|power| power.abs() <= 64)?)
        }
    })
}

fn parse(text: &str) -> Option<Amount> {
    let text = text.trim();
    let (negative, unsigned) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, rest) = unsigned.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || whole.len() + fraction.len() > 64 {
        return None;
    }
    let whole = Some(whole.trim_start_matches('0')).filter(|whole| !whole.is_empty()).unwrap_or("0");
    let suffix = suffix(rest)?;
    let sign = if negative { -1 } else { 1 };
    if let Some(scaled) = scaled(whole, fraction, suffix, sign) {
        return Some(scaled);
    }
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    Some(Amount::Nano(i128::from(sign) * nano(digits, i32::try_from(fraction.len()).ok()?, suffix)?))
}

/// The short form, where Go takes it.
fn scaled(whole: &str, fraction: &str, suffix: Suffix, sign: i64) -> Option<Amount> {
    let (digits, places) = (i32::try_from(whole.len()).ok()?, i32::try_from(fraction.len()).ok()?);
    let (factor, scale) = match suffix {
        Suffix::Decimal(power) if digits + places <= 18 => (1, power - places),
        // 2^10 counts as three digits.
        Suffix::Binary(power) if places == 0 && 15 - digits - i32::try_from(power * 3 / 10).ok()? > 0 => {
            (1 << power, 0)
        }
        Suffix::Decimal(_) | Suffix::Binary(_) => return None,
    };
    if scale < -9 {
        return None;
    }
    let value: i64 = format!("{whole}{fraction}").parse().ok()?;
    Some(Amount::Scaled { value: value.checked_mul(factor)?.checked_mul(sign)?, scale })
}

/// `digits * 10^-places * suffix` in billionths, rounded up.
fn nano(digits: i128, places: i32, suffix: Suffix) -> Option<i128> {
    /// A binary quantity is cut off at 2^63-1.
    const BINARY_LIMIT: i128 = i64::MAX as i128 * 1_000_000_000;
    let (digits, power) = match suffix {
        Suffix::Decimal(power) => (digits, power),
        Suffix::Binary(power) => (digits.checked_mul(1 << power)?, 0),
    };
    let shift = 9 + power - places;
    let nano = if shift < 0 {
        match 10_i128.checked_pow(shift.unsigned_abs()) {
            Some(power) => digits / power + i128::from(digits % power != 0),
            None => i128::from(digits != 0),
        }
    } else {
        digits.checked_mul(10_i128.checked_pow(shift.unsigned_abs())?)?
    };
    Some(match suffix {
        Suffix::Decimal(_) => nano,
        Suffix::Binary(_) => nano.min(BINARY_LIMIT),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousandths_are_those_of_apimachinery() {
        for (text, wanted) in [
            ("0", Some(0)),
            ("100m", Some(100)),
            ("15.0", Some(15_000)),
            ("0.1", Some(100)),
            (".1", Some(100)),
            ("1.", Some(1000)),
            ("1u", Some(1)),
            ("1n", Some(1)),
            ("-1500u", Some(-2)),
            ("12e6", Some(12_000_000_000)),
            ("1E3", Some(1_000_000)),
            ("1Gi", Some(1_073_741_824_000)),
            ("1.5Ki", Some(1_536_000)),
            ("+5", Some(5000)),
            ("9223372036854775807m", Some(i64::MAX)),
            // Overflow, as in Go: the short form multiplied by 1000 in one step, then step by step, then the long form.
            ("9223372036854775807", Some(i64::MAX.wrapping_mul(1000))),
            ("923372036854775807", Some(923_372_036_854_775_807_i64.wrapping_mul(1000))),
            ("1E", Some(0)),
            ("8Ei", Some(i64::MAX.wrapping_mul(1000))),
            ("", None),
            ("-", None),
            ("m", None),
            ("1.2.3", None),
            ("1x", None),
            ("1e", None),
            ("1e99", None),
            ("1KiKi", None),
        ] {
            assert_eq!(milli(&Quantity(text.to_owned())).ok(), wanted, "{text}");
        }
    }

    #[test]
    fn tolerances_are_the_floats_of_apimachinery() {
        for (text, wanted) in
            [("0", 0.0), ("100m", 0.1), ("0.1", 0.1), ("50m", 0.05), ("1", 1.0), ("200m", 0.2), ("1k", 1000.0)]
        {
            assert_eq!(float(&Quantity(text.to_owned())), Ok(wanted), "{text}");
        }
    }
}
