//! Kubernetes quantities (`250m`, `512Mi`, `1e3`) as whole numbers and as floats. The one reader of them in this
//! project.
//!
//! Source: `k8s.io/apimachinery/pkg/api/resource` (`ParseQuantity`, `MilliValue`, `Value`, `AsApproximateFloat64`).
//! What it takes is taken here and what it refuses is refused: a JSON number included, and blanks around the text,
//! which its `UnmarshalJSON` trims. As there, a value finer than the unit is rounded away from zero, so that nothing
//! above 0 becomes 0.
//!
//! One deliberate difference: where Go's result wraps around or becomes 0 since it does not fit, the nearest number
//! that fits is taken (docs/migrate-from-hpa.md lists the differences).

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Why a quantity cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAQuantity {
    /// It cannot be read.
    #[error("{0:?} is not a quantity; write for example 250m, 2 or 512Mi")]
    Text(String),
    /// It is below zero where nothing can be.
    #[error("{0:?} is negative; write 0 or more")]
    Negative(String),
}

/// The value in thousandths, as `Quantity.MilliValue()` has it; at most the largest `i64` in either direction.
///
/// # Errors
/// When the text is no quantity.
pub fn milli(quantity: &Quantity) -> Result<i64, NotAQuantity> {
    let amount = parse(quantity)?;
    let magnitude = amount.rounded_up(3);
    Ok(if amount.negative { -magnitude } else { magnitude })
}

/// The value as a float, as `Quantity.AsApproximateFloat64()` has it.
///
/// # Errors
/// When the text is no quantity.
pub fn float(quantity: &Quantity) -> Result<f64, NotAQuantity> {
    parse(quantity).map(|amount| amount.float())
}

/// CPU in millicores, as the kubelet and the scheduler read it; at most 2^63-1.
///
/// # Errors
/// When the text is no quantity, or is negative.
pub fn millicores(quantity: &Quantity) -> Result<u64, NotAQuantity> {
    unsigned(quantity, 3)
}

/// Memory in bytes, as the kubelet and the scheduler read it; at most 2^63-1.
///
/// # Errors
/// When the text is no quantity, or is negative.
pub fn bytes(quantity: &Quantity) -> Result<u64, NotAQuantity> {
    unsigned(quantity, 0)
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

fn unsigned(quantity: &Quantity, places: i64) -> Result<u64, NotAQuantity> {
    let amount = parse(quantity)?;
    let magnitude = amount.rounded_up(places);
    if amount.negative && magnitude > 0 {
        return Err(NotAQuantity::Negative(quantity.0.clone()));
    }
    Ok(magnitude.unsigned_abs())
}

/// A decimal number: `digits * 10^exponent`, exact to a billionth, as apimachinery keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Amount {
    negative: bool,
    /// Each from 0 to 9, the highest first.
    digits: Vec<u8>,
    /// At least -9.
    exponent: i64,
}

impl Amount {
    /// The magnitude times `10^places` as a whole number, rounded up; what is larger than the largest `i64` is that.
    fn rounded_up(&self, places: i64) -> i64 {
        let zeros = self.exponent.saturating_add(places);
        let kept = self.digits.len().saturating_sub(usize::try_from(-zeros).unwrap_or(0));
        let (whole, rest) = self.digits.split_at(kept);
        let whole = whole.iter().try_fold(0_i64, |sum, digit| sum.checked_mul(10)?.checked_add(i64::from(*digit)));
        let shifted = match whole {
            Some(0) => Some(0),
            Some(whole) => u32::try_from(zeros.max(0))
                .ok()
                .and_then(|zeros| 10_i64.checked_pow(zeros))
                .and_then(|power| whole.checked_mul(power)),
            None => None,
        };
        shifted.unwrap_or(i64::MAX).saturating_add(i64::from(rest.iter().any(|digit| *digit > 0)))
    }

    fn float(&self) -> f64 {
        let digits: String = self.digits.iter().map(|digit| char::from(b'0' + digit)).collect();
        let magnitude = digits.parse().unwrap_or(0.0) * power_of_ten(self.exponent);
        // Zero times an infinite power.
        let magnitude = if magnitude.is_nan() { 0.0 } else { magnitude };
        if self.negative { -magnitude } else { magnitude }
    }

    /// Rounded up to whole billionths: one that asks for something gets something.
    fn in_billionths(mut self) -> Self {
        let superfluous = usize::try_from(-9 - self.exponent).unwrap_or(0);
        if superfluous == 0 {
            return self;
        }
        let lost = self.digits.split_off(self.digits.len().saturating_sub(superfluous));
        self.exponent = -9;
        if lost.iter().any(|digit| *digit > 0) {
            multiply_add(&mut self.digits, 1, 1);
        }
        self
    }
}

/// 10^n as Go's `math.Pow10` has it: for negative n the float nearest to it, infinite or zero beyond the range.
fn power_of_ten(n: i64) -> f64 {
    format!("1e{n}").parse().unwrap_or(f64::INFINITY)
}

/// `digits * factor + more`, in place.
fn multiply_add(digits: &mut Vec<u8>, factor: u32, more: u32) {
    let mut carry = more;
    for digit in digits.iter_mut().rev() {
        carry += u32::from(*digit) * factor;
        *digit = (carry % 10) as u8;
        carry /= 10;
    }
    while carry > 0 {
        digits.insert(0, (carry % 10) as u8);
        carry /= 10;
    }
}

/// What a suffix stands for: a power of ten, or how many times 1024.
enum Suffix {
    Decimal(i64),
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
        "Ki" => Suffix::Binary(1),
        "Mi" => Suffix::Binary(2),
        "Gi" => Suffix::Binary(3),
        "Ti" => Suffix::Binary(4),
        "Pi" => Suffix::Binary(5),
        "Ei" => Suffix::Binary(6),
        // Go cuts the exponent to 32 bits; beyond them nothing is different from them.
        exponent => Suffix::Decimal(i64::from(exponent.strip_prefix(['e', 'E'])?.parse::<i32>().ok()?)),
    })
}

fn parse(quantity: &Quantity) -> Result<Amount, NotAQuantity> {
    parse_text(quantity.0.trim()).ok_or_else(|| NotAQuantity::Text(quantity.0.clone()))
}

fn parse_text(text: &str) -> Option<Amount> {
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, rest) = unsigned.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let mut digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).map(|digit| digit - b'0').collect();
    let places = i64::try_from(fraction.len()).ok()?;
    let power = match suffix(rest)? {
        Suffix::Decimal(power) => power,
        Suffix::Binary(times) => {
            (0..times).for_each(|_| multiply_add(&mut digits, 1024, 0));
            0
        }
    };
    Some(Amount { negative, digits, exponent: power - places }.in_billionths())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(text: &str) -> Quantity {
        Quantity(text.to_owned())
    }

    /// The value in billionths, by whole numbers alone.
    const fn nano(digits: i128, exponent: u32) -> i128 {
        digits * 10_i128.pow(exponent + 9)
    }

    fn parsed_nano(text: &str) -> Option<i128> {
        let amount = parse_text(text)?;
        let magnitude = amount.digits.iter().fold(0_i128, |sum, digit| sum * 10 + i128::from(*digit));
        let magnitude = magnitude * 10_i128.pow(u32::try_from(amount.exponent + 9).expect("at least -9"));
        Some(if amount.negative { -magnitude } else { magnitude })
    }

    const fn whole(value: i128) -> i128 {
        nano(value, 0)
    }

    const KI: i128 = 1024;

    /// `TestQuantityParse` of `k8s.io/apimachinery` v0.37.1, with the values in billionths.
    const TABLE: &[(&str, i128)] = &[
        ("0", 0),
        ("0n", 0),
        ("0u", 0),
        ("0m", 0),
        ("0Ki", 0),
        ("0k", 0),
        ("0Mi", 0),
        ("0M", 0),
        ("0Gi", 0),
        ("0G", 0),
        ("0Ti", 0),
        ("0T", 0),
        ("1", whole(1)),
        ("1Ki", whole(KI)),
        ("8Ki", whole(8 * KI)),
        ("7Mi", whole(7 * KI.pow(2))),
        ("6Gi", whole(6 * KI.pow(3))),
        ("5Ti", whole(5 * KI.pow(4))),
        ("4Pi", whole(4 * KI.pow(5))),
        ("3Ei", whole(3 * KI.pow(6))),
        ("10Ti", whole(10 * KI.pow(4))),
        ("100Ti", whole(100 * KI.pow(4))),
        ("5n", 5),
        ("4u", 4_000),
        ("3m", 3_000_000),
        ("9", whole(9)),
        ("8k", nano(8, 3)),
        ("50k", nano(5, 4)),
        ("7M", nano(7, 6)),
        ("6G", nano(6, 9)),
        ("5T", nano(5, 12)),
        ("40T", nano(4, 13)),
        ("300T", nano(3, 14)),
        ("2P", nano(2, 15)),
        ("1E", nano(1, 18)),
        ("1E-3", 1_000_000),
        ("1e3", nano(1, 3)),
        ("1E6", nano(1, 6)),
        ("1e9", nano(1, 9)),
        ("1E12", nano(1, 12)),
        ("1e15", nano(1, 15)),
        ("1E18", nano(1, 18)),
        ("1e14", nano(1, 14)),
        ("1e13", nano(1, 13)),
        ("100.035k", nano(100_035, 0)),
        ("0.001", 1_000_000),
        ("0.0005k", 500_000_000),
        ("0.005", 5_000_000),
        ("0.05", 50_000_000),
        ("0.5", 500_000_000),
        ("0.00050k", 500_000_000),
        ("0.00500", 5_000_000),
        ("0.05000", 50_000_000),
        ("0.50000", 500_000_000),
        ("0.5e0", 500_000_000),
        ("0.5e-1", 50_000_000),
        ("0.5e-2", 5_000_000),
        ("10.035M", nano(10_035, 3)),
        ("1.2e3", nano(12, 2)),
        ("1.3E+6", nano(13, 5)),
        ("1.40e9", nano(14, 8)),
        ("1.53E12", nano(153, 10)),
        ("1.6e15", nano(16, 14)),
        ("1.7E18", nano(17, 17)),
        ("9.01", 9_010_000_000),
        ("8.1k", nano(81, 2)),
        ("7.123456M", nano(7_123_456, 0)),
        ("6.987654321G", nano(6_987_654_321, 0)),
        ("5.444T", nano(5_444, 9)),
        ("40.1T", nano(401, 11)),
        ("300.2T", nano(3_002, 11)),
        ("2.5P", nano(25, 14)),
        ("1.01E", nano(101, 16)),
        // Rounded away from zero.
        ("3.001n", 4),
        ("1.1E-9", 2),
        ("0.0000000001", 1),
        ("0.0000000005", 1),
        ("0.00000000050", 1),
        ("0.5e-9", 1),
        ("0.9n", 1),
        ("0.00000012345", 124),
        ("0.00000012354", 124),
        ("12E", nano(12, 18)),
        ("100.035Ki", 102_435_840_000_000),
        ("0.5Mi", whole(512 * KI)),
        ("0.05Gi", 53_687_091_200_000_000),
        ("0.025Ti", 27_487_790_694_400_000_000),
        ("0.000000000001Ki", 2),
        (".001", 1_000_000),
        (".0001k", 100_000_000),
        ("1.", whole(1)),
        ("1.G", nano(1, 9)),
    ];

    #[test]
    fn the_table_of_apimachinery_is_read_alike() {
        for &(text, wanted) in TABLE {
            assert_eq!(parsed_nano(text), Some(wanted), "{text}");
            assert_eq!(parsed_nano(&format!("-{text}")), Some(-wanted), "-{text}");
            assert_eq!(parsed_nano(&format!("+{text}")), Some(wanted), "+{text}");
        }
        for text in [
            "", "1.1.M", "1+1.0M", "0.1mi", "0.1am", "aoeu", ".5i", "1i", "-3.01i", "-3.01e-", " 1", "1 ", "-", ".",
            "m", "1e", "1KiKi", "1e1.5", "--1", "-+1", "0x10", "NaN", "Inf", "1_000",
        ] {
            assert_eq!(parse_text(text), None, "{text}");
        }
    }

    #[test]
    fn whole_numbers_are_rounded_up_and_end_at_the_largest() {
        for (text, thousandths, whole) in [
            ("250m", 250, 1),
            ("0.3333333333333333", 334, 1),
            ("0.5", 500, 1),
            ("1000m", 1000, 1),
            ("100e-3", 100, 1),
            ("1e3", 1_000_000, 1000),
            ("1.5Gi", 1_610_612_736_000, 1_610_612_736),
            ("1n", 1, 1),
            ("0.0004", 1, 1),
            (" 2\n", 2000, 2),
            ("9223372036854775807m", i64::MAX, 9_223_372_036_854_776),
            ("9223372036854775807", i64::MAX, i64::MAX),
            ("9223372036854775807.000000001", i64::MAX, i64::MAX),
            ("1E", i64::MAX, 1_000_000_000_000_000_000),
            ("12E", i64::MAX, i64::MAX),
            ("9Ei", i64::MAX, i64::MAX),
            ("9223372036854775807Ki", i64::MAX, i64::MAX),
            ("1e2147483647", i64::MAX, i64::MAX),
            ("1e-2147483648", 1, 1),
            ("0e2147483647", 0, 0),
        ] {
            assert_eq!(milli(&of(text)), Ok(thousandths), "{text} in thousandths");
            assert_eq!(milli(&of(&format!("-{}", text.trim()))), Ok(-thousandths), "-{text} in thousandths");
            assert_eq!(millicores(&of(text)), Ok(thousandths.unsigned_abs()), "{text} as millicores");
            assert_eq!(bytes(&of(text)), Ok(whole.unsigned_abs()), "{text} as bytes");
        }
        assert_eq!(bytes(&of("-1")), Err(NotAQuantity::Negative("-1".to_owned())));
        assert_eq!(bytes(&of("-0")), Ok(0));
    }

    #[test]
    fn floats_are_those_of_apimachinery() {
        for (text, wanted) in [
            ("0", 0.0),
            ("100m", 0.1),
            ("0.1", 0.1),
            ("50m", 0.05),
            ("1", 1.0),
            ("200m", 0.2),
            ("1k", 1000.0),
            ("8Ki", 8192.0),
            ("0.3", 3.0 * 0.1),
            ("12E", 1.2e19),
            ("12e500", f64::INFINITY),
            ("-12e500", f64::NEG_INFINITY),
            ("0e500", 0.0),
        ] {
            assert_eq!(float(&of(text)), Ok(wanted), "{text}");
        }
    }

    /// What Kubernetes writes for a value: a number, a decimal suffix, a binary one, an exponent, a fraction.
    fn forms(value: u32, thousands: u32) -> Vec<String> {
        let zeros = "0".repeat(3 * thousands as usize);
        let exponent = 3 * thousands;
        let suffix = ["", "k", "M", "G"].get(thousands as usize).copied().unwrap_or_default();
        vec![
            format!("{value}{suffix}"),
            format!("{value}{zeros}"),
            format!("{value}e{exponent}"),
            format!("{value}E+{exponent}"),
            format!("{value}{zeros}000m"),
            format!("{value}{zeros}000000u"),
            format!("{value}{zeros}.000"),
            format!("0{value}{zeros}"),
            format!("{value}000e{}", i64::from(exponent) - 3),
        ]
    }

    proptest! {
        #[test]
        fn forms_of_one_value_are_equal_and_canonical_forms_read_back(value: u32, thousands in 0_u32..4) {
            let wanted = u64::from(value) * 1000_u64.pow(thousands);
            for form in forms(value, thousands) {
                prop_assert_eq!(bytes(&of(&form)), Ok(wanted), "{}", form);
            }
            prop_assert_eq!(bytes(&from_bytes(wanted)), Ok(wanted));
            prop_assert_eq!(millicores(&from_millicores(wanted)), Ok(wanted));
            prop_assert_eq!(from_bytes(bytes(&from_bytes(wanted)).unwrap()), from_bytes(wanted));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,40}") {
            let (milli, float) = (milli(&of(&text)), float(&of(&text)));
            prop_assert_eq!(milli.is_ok(), float.is_ok());
            prop_assert!(float.is_ok_and(|float| !float.is_nan()) || milli.is_err());
        }
    }
}
