//! Durations as KCL's `DurationConverter` reads them: `java.time.Duration.parse`, but not negative.

use std::fmt;
use std::time::Duration;

use super::trim;

const NANOS: i128 = 1_000_000_000;

/// A text that is not a valid duration. Each variant holds the trimmed text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DurationError {
    /// Not written as an ISO 8601 duration of days and less.
    Unreadable(String),
    /// More than 2^63 seconds, in one part or in total.
    TooLong(String),
    /// Negative, which a Java duration may be and the setting may not.
    Negative(String),
}

impl fmt::Display for DurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (text, fault) = match self {
            Self::Unreadable(text) => (text, "is not a duration"),
            Self::TooLong(text) => (text, "exceeds the maximum duration"),
            Self::Negative(text) => (text, "is a negative duration"),
        };
        write!(f, "{text:?} {fault} (write days, hours, minutes and seconds as in P1DT2H30M4.5S or PT90S)")
    }
}

impl std::error::Error for DurationError {}

/// A `java.time.Duration` setting: trimmed, `PnDTnHnMn.nS`, ignoring case. At least one part is required; each
/// part and the whole may have a sign. The seconds may have up to nine decimals, after `.` or `,`. A day is 24
/// hours. Zero is allowed.
///
/// # Errors
/// [`DurationError`] in all three variants.
pub fn duration(text: &str) -> Result<Duration, DurationError> {
    let text = trim(text);
    let parts = parts(text).ok_or_else(|| DurationError::Unreadable(text.to_owned()))?;
    let nanos = total(&parts).ok_or_else(|| DurationError::TooLong(text.to_owned()))?;
    let seconds = nanos.div_euclid(NANOS);
    match (u64::try_from(seconds), u32::try_from(nanos.rem_euclid(NANOS))) {
        (Ok(seconds), Ok(nanos)) => Ok(Duration::new(seconds, nanos)),
        _ => Err(DurationError::Negative(text.to_owned())),
    }
}

/// The parts of a well-formed text. The counts are as written, with their signs.
#[derive(Default)]
struct Parts<'a> {
    is_negated: bool,
    /// Days, hours, minutes, seconds.
    counts: [Option<&'a str>; 4],
    /// Up to nine decimals of the seconds.
    decimals: &'a str,
}

/// Seconds per unit.
const UNITS: [(char, i64); 4] = [('D', 86_400), ('H', 3_600), ('M', 60), ('S', 1)];

fn parts(text: &str) -> Option<Parts<'_>> {
    let is_negated = text.starts_with('-');
    let text = text.strip_prefix(['-', '+']).unwrap_or(text).strip_prefix(['P', 'p'])?;
    let (days, clock) = match text.find(['T', 't']) {
        Some(index) => text.split_at(index),
        None => (text, ""),
    };
    let mut parts = Parts { is_negated, ..Parts::default() };
    let rest = parts.take(0, days)?;
    // Java rejects an empty time part by comparing with an upper-case T, so a lower-case one is accepted.
    if !rest.is_empty() || clock == "T" {
        return None;
    }
    let mut rest = clock.get(1..).unwrap_or_default();
    for unit in 1..UNITS.len() {
        rest = parts.take(unit, rest)?;
    }
    (rest.is_empty() && parts.counts.iter().any(Option::is_some)).then_some(parts)
}

impl<'a> Parts<'a> {
    /// Removes a count of the given unit from the front, if there is one, and returns the rest. None if the
    /// text is malformed.
    fn take(&mut self, unit: usize, text: &'a str) -> Option<&'a str> {
        let (name, _) = UNITS.get(unit)?;
        let signs = text.len() - text.strip_prefix(['-', '+']).unwrap_or(text).len();
        let digits = text.bytes().skip(signs).take_while(u8::is_ascii_digit).count();
        let (count, mut rest) = text.split_at_checked(signs + digits)?;
        let mut decimals = "";
        if let (true, Some(fraction)) = (*name == 'S', rest.strip_prefix(['.', ','])) {
            let length = fraction.bytes().take_while(u8::is_ascii_digit).count();
            (decimals, rest) = fraction.split_at_checked(length).filter(|_| length <= 9)?;
        }
        let Some(rest) = rest.strip_prefix([*name, name.to_ascii_lowercase()]) else { return Some(text) };
        if digits == 0 {
            return None;
        }
        self.decimals = decimals;
        *self.counts.get_mut(unit)? = Some(count);
        Some(rest)
    }
}

/// The sum in nanoseconds. None if Java's 64-bit sums overflow.
fn total(parts: &Parts<'_>) -> Option<i128> {
    let mut seconds: i64 = 0;
    // Summed from the seconds upwards, as in Java, because an intermediate overflow is an error.
    for (count, (_, unit)) in parts.counts.iter().zip(UNITS).rev() {
        let count: i64 = count.map_or(Some(0), |count| count.parse().ok())?;
        seconds = seconds.checked_add(count.checked_mul(unit)?)?;
    }
    let decimals: i128 = format!("{:0<9}", parts.decimals).parse().ok()?;
    let is_below = parts.counts.iter().flatten().next_back().is_some_and(|count| count.starts_with('-'));
    let nanos = i128::from(seconds) * NANOS + if is_below { -decimals } else { decimals };
    let nanos = in_range(nanos)?;
    if parts.is_negated { in_range(-nanos) } else { Some(nanos) }
}

/// Java keeps the whole seconds, rounded down, in 64 bits.
fn in_range(nanos: i128) -> Option<i128> {
    i64::try_from(nanos.div_euclid(NANOS)).ok().map(|_| nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_signs_and_decimals_add_up() {
        for (text, seconds, nanos) in [
            ("PT24H", 86_400, 0),
            (" p1dt2h3m4.5s ", 93_784, 500_000_000),
            ("PT0S", 0, 0),
            ("PT1,000000001S", 1, 1),
            ("PT1.S", 1, 0),
            ("PT1H-30M", 1_800, 0),
            ("-PT-0.5S", 0, 500_000_000),
            ("P1Dt", 86_400, 0),
            ("PT9223372036854775807.9S", 9_223_372_036_854_775_807, 900_000_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::new(seconds, nanos)), "{text}");
        }
    }

    #[test]
    fn errors_distinguish_the_three_kinds() {
        for text in ["", "P", "PT", "P1DT", "P1W", "P1M", "1S", "PT1M1H", "PT.5S", "PT1.1234567890S", "PT1"] {
            assert_eq!(duration(text), Err(DurationError::Unreadable(text.to_owned())));
        }
        for text in ["PT99999999999999999999S", "P106751991167301D", "-PT-9223372036854775808S"] {
            assert_eq!(duration(text), Err(DurationError::TooLong(text.to_owned())));
        }
        for text in ["PT-1H", "-PT1H", "PT-0.5S", "PT-9223372036854775808S"] {
            assert_eq!(duration(text), Err(DurationError::Negative(text.to_owned())));
        }
    }

    #[test]
    fn error_shows_the_text_and_a_valid_example() {
        let shown = duration(" PT-1H").map_err(|error| error.to_string());
        let expected = "\"PT-1H\" is a negative duration (write days, hours, minutes and seconds as in \
                        P1DT2H30M4.5S or PT90S)";
        assert_eq!(shown, Err(expected.to_owned()));
    }
}
