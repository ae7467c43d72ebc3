//! Durations as the API writes them.

use std::time::Duration;

/// Hours, minutes and seconds: `45s`, `2m30s`, `1h`.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = 0_u64;
    for (unit, seconds) in [('h', 3600), ('m', 60), ('s', 1)] {
        if let Some((number, after)) = rest.split_once(unit) {
            total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(seconds)?)?;
            rest = after;
        }
    }
    (rest.is_empty() && !text.is_empty()).then_some(Duration::from_secs(total))
}

/// A time in which something is answered: minutes, seconds and milliseconds, `250ms`, `1s`, `1m30s`.
#[must_use]
pub fn parse_latency(text: &str) -> Option<Duration> {
    let Some(head) = text.strip_suffix("ms") else {
        return parse_duration(text).filter(|_| !text.contains('h'));
    };
    let digits = head.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    let (rest, millis) = head.split_at(digits);
    let millis = Duration::from_millis(millis.parse().ok()?);
    let rest = match rest {
        "" => Duration::ZERO,
        rest => parse_duration(rest).filter(|_| !rest.contains('h'))?,
    };
    rest.checked_add(millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_minutes_and_seconds_are_read_in_this_order_and_nothing_else() {
        for (text, seconds) in [
            ("45s", 45),
            ("2m30s", 150),
            ("1h", 3600),
            ("0h0m1s", 1),
            ("0s", 0),
        ] {
            let read = parse_duration(text);
            assert_eq!(read, Some(Duration::from_secs(seconds)), "{text}");
        }
        for (text, millis) in [
            ("250ms", 250),
            ("1s", 1000),
            ("1s500ms", 1500),
            ("1m30s", 90_000),
            ("2m5ms", 120_005),
            ("0ms", 0),
        ] {
            let read = parse_latency(text);
            assert_eq!(read, Some(Duration::from_millis(millis)), "{text}");
        }
        for text in [
            "", "ms", "s", "1h", "1h5ms", "5ms1s", "1.5s", "-1ms", "500us", "5 ms",
        ] {
            assert_eq!(parse_latency(text), None, "{text}");
        }
        for text in [
            "",
            "s",
            "45",
            "1d",
            "-1s",
            "1.5m",
            "30s1m",
            "500ms",
            "18446744073709551615h",
        ] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
