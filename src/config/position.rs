//! Checks whether the timestamp of `initialPositionInStreamExtended` can be a start position.
//!
//! Java accepts any number; Kinesis refuses a time in the future, so Java retries for ever and starts no
//! record processor.

use super::keys::kcl;
use crate::clock::date;

/// Most seconds by which the clocks of this machine and of Kinesis may differ.
const SKEW: i64 = 5 * 60;
/// 2010 in seconds since 1970. No record is older: Kinesis was launched in 2013.
const OLDEST: i64 = 1_262_304_000;

/// Why a timestamp is invalid; none if it is valid. `seconds` and `now_millis` are since 1970.
pub(super) fn fault(seconds: i64, now_millis: i64) -> Option<String> {
    let latest = now_millis / 1_000 + SKEW;
    if seconds <= latest {
        return None;
    }
    let key = kcl::POSITION_EXTENDED;
    let means = format!("{key} = {seconds} is {}, which is in the future", date(seconds));
    let divided = seconds / 1_000;
    Some(if (OLDEST..=latest).contains(&divided) {
        format!(
            "{means}: the value looks like milliseconds, expected seconds since 1970 ({key} = {divided} \
             is {})",
            date(divided)
        )
    } else {
        format!(
            "{means} (set the seconds since 1970 of a time in the past, or initialPositionInStream = \
             LATEST)"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_764_425_580;

    #[test]
    fn date_is_gregorian_in_utc() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (NOW, "2025-11-29T14:13:00Z"),
            (1_764_425_580_000, "57882-06-03T08:40:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (4_102_444_799, "2099-12-31T23:59:59Z"),
        ] {
            assert_eq!(date(seconds), expected);
        }
        for extreme in [i64::MIN, i64::MAX] {
            assert!(date(extreme).ends_with('Z'));
        }
    }

    #[test]
    fn past_time_and_clock_skew_are_accepted() {
        for seconds in [i64::MIN, -1, 0, NOW - 1, NOW, NOW + SKEW] {
            assert_eq!(fault(seconds, NOW * 1_000), None, "{seconds}");
        }
    }

    #[test]
    fn future_time_is_rejected_with_its_date() {
        for seconds in [NOW + SKEW + 1, NOW + 86_400, i64::MAX] {
            let text = fault(seconds, NOW * 1_000).unwrap();
            assert!(text.contains(&seconds.to_string()) && text.contains(&date(seconds)), "{text}");
            assert!(!text.contains("milliseconds"), "{text}");
        }
    }

    #[test]
    fn milliseconds_are_rejected_with_the_value_in_seconds() {
        let text = fault(NOW * 1_000 + 7, NOW * 1_000).unwrap();
        assert!(text.contains(&format!("= {NOW} is 2025-11-29T14:13:00Z")), "{text}");
        assert!(text.contains("milliseconds"), "{text}");
    }
}
