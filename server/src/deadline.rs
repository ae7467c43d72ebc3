//! How long a client waits, as its headers say it.
//!
//! Over REST `X-Request-Timeout: 250ms` (ms, s, m, h; a bare number is seconds), over gRPC
//! `grpc-timeout: 250m` as gRPC's protocol has it. The parameter `timeout` of the V2 protocol, in
//! microseconds, says the same in the request; the shortest of them counts.

use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName};

use crate::options::parse_duration;

/// The header of REST requests.
pub const HEADER: HeaderName = HeaderName::from_static("x-request-timeout");
const GRPC_HEADER: &str = "grpc-timeout";

/// What a REST request's headers allow.
pub fn of_rest(headers: &HeaderMap) -> Result<Option<Duration>, String> {
    let Some(value) = headers.get(HEADER) else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(value.as_bytes());
    match parse_duration(text.trim()) {
        Ok(timeout) => Ok(Some(timeout)),
        Err(why) => Err(format!("the header X-Request-Timeout: {why}")),
    }
}

/// What a gRPC request's headers allow: at most eight digits and one of H M S m u n.
pub fn of_grpc(headers: &HeaderMap) -> Result<Option<Duration>, String> {
    let Some(value) = headers.get(GRPC_HEADER) else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(value.as_bytes());
    grpc_timeout(&text).map(Some).ok_or_else(|| {
        format!(
            "the header grpc-timeout is {:?}, expected one to eight digits and one of H, M, S, m, u, n",
            text.chars().take(32).collect::<String>()
        )
    })
}

fn grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// When a request that came at `since` must be answered, by the shortest of what was said; none: never.
#[must_use]
pub fn earliest(
    since: Instant,
    timeouts: impl IntoIterator<Item = Option<Duration>>,
) -> Option<Instant> {
    let shortest = timeouts.into_iter().flatten().min()?;
    // A deadline beyond what the clock can count is none.
    since.checked_add(shortest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        headers
    }

    #[test]
    fn grpc_timeouts_have_eight_digits_and_a_unit() {
        for (text, expected) in [
            ("1H", Duration::from_secs(3600)),
            ("2M", Duration::from_secs(120)),
            ("0S", Duration::ZERO),
            ("99999999m", Duration::from_millis(99_999_999)),
            ("50u", Duration::from_micros(50)),
            ("7n", Duration::from_nanos(7)),
            ("99999999H", Duration::from_secs(99_999_999 * 3600)),
        ] {
            assert_eq!(
                of_grpc(&headers("grpc-timeout", text)),
                Ok(Some(expected)),
                "{text}"
            );
        }
        for text in [
            "",
            "m",
            "5",
            "999999999m",
            "-1S",
            "1.5S",
            "5 S",
            "5h",
            "é",
            "+5m",
        ] {
            let sentence = of_grpc(&headers("grpc-timeout", text)).unwrap_err();
            assert!(sentence.contains("eight digits"), "{text}: {sentence}");
        }
        assert_eq!(of_grpc(&HeaderMap::new()), Ok(None));
    }

    #[test]
    fn rest_timeouts_have_a_unit() {
        for (text, millis) in [("250ms", 250), (" 2s ", 2000), ("1.5", 1500), ("0", 0)] {
            let headers = headers("x-request-timeout", text);
            assert_eq!(
                of_rest(&headers),
                Ok(Some(Duration::from_millis(millis))),
                "{text}"
            );
        }
        let sentence = of_rest(&headers("x-request-timeout", "soon")).unwrap_err();
        assert!(
            sentence.contains("X-Request-Timeout") && sentence.contains("250ms"),
            "{sentence}"
        );
    }

    #[test]
    fn the_shortest_time_counts_and_an_endless_one_is_none() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        assert_eq!(earliest(now, [None, None]), None);
        assert_eq!(
            earliest(now, [Some(second * 2), None, Some(second)]),
            Some(now + second)
        );
        assert_eq!(earliest(now, [Some(Duration::MAX)]), None);
    }
}
