//! Ages for people, and times that people write.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// How long ago, as kubectl writes it: two units while the first is small. Nothing is ever in the future: clocks differ.
pub fn age(since: Timestamp, now: Timestamp) -> String {
    span(now.duration_since(since).as_secs())
}

/// Seconds as kubectl writes an age.
pub fn span(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    let two = |first: i64, unit: char, second: i64, smaller: char| match second {
        0 => format!("{first}{unit}"),
        _ => format!("{first}{unit}{second}{smaller}"),
    };
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => two(minutes, 'm', seconds % 60, 's'),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, 'h', minutes % 60, 'm'),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, 'd', hours % 24, 'h'),
        _ => format!("{days}d"),
    }
}

/// Reads `90s`, `10m`, `1h30m`; 0 means without an end.
///
/// # Errors
/// A sentence with what to write.
pub fn timeout(text: &str) -> Result<Timeout, String> {
    if text == "0" {
        return Ok(Timeout(None));
    }
    let wrong =
        || format!("{text:?} is no time: write 90s, 10m or 1h30m, or 0 to wait without an end");
    let read: SignedDuration = text.parse().map_err(|_| wrong())?;
    let read = Duration::try_from(read).map_err(|_| wrong())?;
    Ok(Timeout((!read.is_zero()).then_some(read)))
}

/// How long to wait; `None` without an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeout(pub Option<Duration>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_as_kubectls() {
        for (seconds, text) in [
            (-5, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (11_400, "3h10m"),
            (30_000, "8h"),
            (172_800, "2d"),
            (180_000, "2d2h"),
            (864_000, "10d"),
        ] {
            assert_eq!(span(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn times_are_read_and_what_is_none_says_what_to_write() {
        for (text, seconds) in [
            ("90s", Some(90)),
            ("10m", Some(600)),
            ("1h30m", Some(5400)),
            ("0", None),
            ("0s", None),
        ] {
            let read = timeout(text).expect(text);
            assert_eq!(read.0.map(|time| time.as_secs()), seconds, "{text}");
        }
        for text in ["", "ten", "10", "-5m"] {
            let error = timeout(text).expect_err(text);
            assert!(error.contains("write 90s, 10m or 1h30m"), "{error}");
        }
    }
}
