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
