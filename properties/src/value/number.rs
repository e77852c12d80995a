//! Numbers: Java's `int`, `long` and `double`, read leniently (as a bean's setting) or strictly.

use std::fmt;

use super::{Read, trim};

/// A text that `Integer.parseInt` or `Long.parseLong` rejects.
///
/// Java: `NumberFormatException`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotANumber {
    /// The text, untrimmed.
    pub text: String,
    /// The least accepted number.
    pub min: i64,
    /// The greatest accepted number.
    pub max: i64,
}

impl fmt::Display for NotANumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { text, min, max } = self;
        write!(f, "{text:?} is not a whole number (write decimal digits without blanks, from {min} to {max})")
    }
}

impl std::error::Error for NotANumber {}

/// An `int` or `Integer` of a bean: trimmed, an optional sign, decimal digits, in range.
pub fn int(text: &str) -> Read<i32> {
    parse_int(trim(text)).ok().into()
}

/// A `long` or `Long` of a bean: trimmed, an optional sign, decimal digits, in range.
pub fn long(text: &str) -> Read<i64> {
    parse_long(trim(text)).ok().into()
}

/// `Integer.parseInt`: as [`int`], but not trimmed.
///
/// # Errors
/// [`NotANumber`] if the text is anything else or out of range.
pub fn parse_int(text: &str) -> Result<i32, NotANumber> {
    let number = decimal(text).and_then(|number| i32::try_from(number).ok());
    number.ok_or_else(|| NotANumber { text: text.to_owned(), min: i32::MIN.into(), max: i32::MAX.into() })
}

/// `Long.parseLong`: as [`long`], but not trimmed.
///
/// # Errors
/// [`NotANumber`] if the text is anything else or out of range.
pub fn parse_long(text: &str) -> Result<i64, NotANumber> {
    decimal(text).ok_or_else(|| NotANumber { text: text.to_owned(), min: i64::MIN, max: i64::MAX })
}

fn decimal(text: &str) -> Option<i64> {
    let (is_negative, digits) = sign(text);
    if digits.is_empty() {
        return None;
    }
    // Summed as a negative number, because the negative range is greater by one.
    let below = digits
        .chars()
        .try_fold(0, |sum: i64, digit| sum.checked_mul(10)?.checked_sub(decimal_digit(digit)?))?;
    if is_negative { Some(below) } else { below.checked_neg() }
}

fn sign(text: &str) -> (bool, &str) {
    match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    }
}

/// `Character.digit(c, 10)`: the decimal digits of every script in the basic multilingual plane, which a file
/// can contain as `\u` escapes. Digits beyond that plane are rejected, because Java examines single UTF-16
/// units.
fn decimal_digit(c: char) -> Option<i64> {
    let code = u32::from(c);
    let distance = |zero: &u32| code.checked_sub(*zero).filter(|distance| *distance < 10);
    ZEROS.iter().find_map(distance).map(i64::from)
}

/// The zero of each range of ten digits in JDK 17 (Unicode 13).
#[rustfmt::skip]
const ZEROS: [u32; 37] = [
    0x0030, 0x0660, 0x06f0, 0x07c0, 0x0966, 0x09e6, 0x0a66, 0x0ae6, 0x0b66, 0x0be6,
    0x0c66, 0x0ce6, 0x0d66, 0x0de6, 0x0e50, 0x0ed0, 0x0f20, 0x1040, 0x1090, 0x17e0,
    0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90, 0x1b50, 0x1bb0, 0x1c40, 0x1c50, 0xa620,
    0xa8d0, 0xa900, 0xa9d0, 0xa9f0, 0xaa50, 0xabf0, 0xff10,
];

/// A `double` of a bean, by `Double.valueOf`: trimmed; decimal (`1`, `.5`, `1e3`) or hexadecimal (`0x1p3`),
/// optionally followed by `f` or `d`; `NaN` and `Infinity` in this spelling. A value beyond the range is
/// infinite.
pub fn double(text: &str) -> Read<f64> {
    let (is_negative, size) = sign(trim(text));
    let size = match size {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        number => {
            let number = number.strip_suffix(['f', 'F', 'd', 'D']).unwrap_or(number);
            match number.strip_prefix("0x").or_else(|| number.strip_prefix("0X")) {
                // Without an exponent the last digit may be the letter just removed as a suffix; such a text is
                // unreadable either way.
                Some(digits) => hexadecimal_fraction(digits),
                None => decimal_fraction(number),
            }
        }
    };
    size.map(|size| if is_negative { -size } else { size }).into()
}

/// Rust accepts all texts that Java accepts, and more; this filters the rest.
fn decimal_fraction(text: &str) -> Option<f64> {
    let (digits, exponent) = text.split_once(['e', 'E']).map_or((text, None), |(d, e)| (d, Some(e)));
    let whole_exponent = |e: &str| is_digits(sign(e).1);
    let is_java = digits.bytes().all(|b| b.is_ascii_digit() || b == b'.')
        && digits.bytes().any(|b| b.is_ascii_digit())
        && exponent.is_none_or(whole_exponent);
    if is_java { text.parse().ok() } else { None }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// Parses the text after `0x`: hexadecimal digits with at most one point, then `p` and a power of two.
fn hexadecimal_fraction(text: &str) -> Option<f64> {
    let (digits, exponent) = text.split_once(['p', 'P'])?;
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let (is_negative, power) = sign(exponent);
    if !is_digits(power) {
        return None;
    }
    // An exponent this large stays out of range for any number of digits.
    let power = power.parse().unwrap_or(i64::MAX / 4).min(i64::MAX / 4);
    let mut exponent = if is_negative { -power } else { power };
    let mut mantissa: u64 = 0;
    for (digits, is_fraction) in [(whole, false), (fraction, true)] {
        for digit in digits.chars() {
            let digit = u64::from(digit.to_digit(16)?);
            if mantissa >> 58 == 0 {
                mantissa = mantissa << 4 | digit;
                exponent -= if is_fraction { 4 } else { 0 };
            } else {
                // Digits beyond the precision only matter for rounding: whether any of them is not zero.
                mantissa |= u64::from(digit != 0);
                exponent += if is_fraction { 0 } else { 4 };
            }
        }
    }
    Some(scaled(mantissa, exponent))
}

/// The double nearest to `mantissa * 2^exponent`, ties to even.
fn scaled(mantissa: u64, exponent: i64) -> f64 {
    const FRACTION_BITS: i64 = 52;
    const LEAST_EXPONENT: i64 = -1074;
    const GREATEST_EXPONENT: i64 = 1023;
    if mantissa == 0 {
        return 0.0;
    }
    let length = i64::from(u64::BITS - mantissa.leading_zeros());
    let top = exponent.saturating_add(length - 1);
    if top > GREATEST_EXPONENT {
        return f64::INFINITY;
    }
    // The exponent of the last bit that is kept; the lower bits are rounded.
    let last = (top - FRACTION_BITS).max(LEAST_EXPONENT);
    let gone = last.saturating_sub(exponent);
    let kept = match u32::try_from(gone) {
        Ok(gone @ 0..64) => {
            let kept = mantissa >> gone;
            let lost = mantissa & !(u64::MAX << gone);
            let half = (1 << gone) >> 1;
            let is_up = gone > 0 && (lost > half || lost == half && kept & 1 == 1);
            kept + u64::from(is_up)
        }
        Err(_) if gone < 0 => mantissa << gone.unsigned_abs(),
        Ok(_) | Err(_) => 0,
    };
    // A mantissa with its top bit set adds one to the exponent field; so does a carry into that bit.
    let field = u64::try_from(last - LEAST_EXPONENT).unwrap_or_default();
    f64::from_bits((field << FRACTION_BITS) + kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bean_numbers_are_trimmed_and_whole() {
        assert_eq!(int(" \t+12\n"), Read::Value(12));
        assert_eq!(int("-0"), Read::Value(0));
        assert_eq!(long("-9223372036854775808"), Read::Value(i64::MIN));
        for text in
            ["", " ", "ten", "10.5", "1e3", "0x10", "1_000", "1L", "+", "+-1", "99999999999", "\u{a0}1"]
        {
            assert_eq!(int(text), Read::Unreadable, "{text:?}");
        }
        assert_eq!(long("9223372036854775808"), Read::Unreadable);
    }

    #[test]
    fn digits_of_other_scripts_are_accepted() {
        assert_eq!(int("\u{663}\u{664}"), Read::Value(34));
        assert_eq!(int("\u{1d7d8}"), Read::Unreadable);
    }

    #[test]
    fn strict_numbers_are_not_trimmed() {
        assert_eq!(parse_long("+1"), Ok(1));
        let refused = parse_long("1 ");
        let message = refused.map_err(|error| error.to_string());
        let expected = "\"1 \" is not a whole number (write decimal digits without blanks, \
                        from -9223372036854775808 to 9223372036854775807)";
        assert_eq!(message, Err(expected.to_owned()));
        assert_eq!(parse_int("2147483648").map_err(|error| error.max), Err(2_147_483_647));
    }

    #[test]
    fn doubles_follow_the_syntax_of_java() {
        for (text, expected) in [
            ("1e3", 1000.0),
            (".5", 0.5),
            ("5.", 5.0),
            (" 10d ", 10.0),
            ("0x1p3", 8.0),
            ("-0x.8p1f", -1.0),
            ("0x0.0000000000000000000000001p100", 1.0),
            ("0x10000000000000000000000000p-100", 1.0),
            ("0x1p-1074", f64::from_bits(1)),
            ("0x1p-1075", 0.0),
            ("0x1.fffffffffffff8p1023", f64::INFINITY),
            ("1e400", f64::INFINITY),
            ("-Infinity", f64::NEG_INFINITY),
        ] {
            assert_eq!(double(text), Read::Value(expected), "{text}");
        }
        assert!(double("NaN").value().is_some_and(f64::is_nan));
        for text in ["", ".", "1e", "inf", "nan", "1_0", "0x1", "0xp1", "1 d", "1dd", "+-1", "1e5.0", "NaNd"]
        {
            assert!(double(text).is_unreadable(), "{text:?}");
        }
    }
}
