//! Taking up a broken transfer: what is here, what to ask for, and whether the answer fits.
//! Pure, but for [`jitter`].
//!
//! A transfer is resumed only with a validator that proves the same bytes: a strong ETag, or a
//! Last-Modified that is at least a second older than the answer (RFC 9110, 8.8.2.2). Without one
//! it starts over.

use std::{
    hash::{BuildHasher, RandomState},
    time::{Duration, SystemTime},
};

use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::{Patience, verdict::Trouble};

/// What is here of a file.
#[derive(Debug, Default)]
pub(super) struct Partial {
    offset: u64,
    best: u64,
    total: Option<u64>,
    validator: Option<HeaderValue>,
}

/// Where an answer's body begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// Where we stopped.
    Resume,
    /// At the first byte.
    FromZero,
    /// Somewhere else, or in another file.
    Mismatch,
}

impl Partial {
    /// Bytes that are here.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The most that ever was here: progress is more than this.
    pub(super) fn best(&self) -> u64 {
        self.best
    }

    /// The file's size, when the store said so.
    pub(super) fn total(&self) -> Option<u64> {
        self.total
    }

    pub(super) fn add(&mut self, bytes: u64) {
        self.offset += bytes;
        self.best = self.best.max(self.offset);
    }

    /// Start over with the next attempt.
    pub(super) fn forget(&mut self) {
        (self.offset, self.total, self.validator) = (0, None, None);
    }

    /// The headers to ask with.
    pub(super) fn conditions(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let range = HeaderValue::from_str(&format!("bytes={}-", self.offset));
        if let (Some(validator), Ok(range)) = (&self.validator, range)
            && self.offset > 0
        {
            headers.insert(header::RANGE, range);
            headers.insert(header::IF_RANGE, validator.clone());
        }
        headers
    }

    /// Takes in the head of an answer with status 200 or 206.
    pub(super) fn begin(&mut self, status: StatusCode, headers: &HeaderMap) -> Start {
        if status == StatusCode::PARTIAL_CONTENT {
            let asked = self.offset > 0 && self.validator.is_some();
            let fits = asked
                && content_range(headers).is_some_and(|(first, total)| {
                    first == self.offset
                        && (self.total.is_none() || total.is_none() || total == self.total)
                })
                && !self.another_etag(headers);
            return if fits { Start::Resume } else { Start::Mismatch };
        }
        self.offset = 0;
        self.total = headers
            .get(header::CONTENT_LENGTH)
            .and_then(|v| v.to_str().ok())
            .and_then(|v| v.parse().ok());
        self.validator = validator(headers);
        Start::FromZero
    }

    fn another_etag(&self, headers: &HeaderMap) -> bool {
        let (Some(ours), Some(theirs)) = (&self.validator, headers.get(header::ETAG)) else {
            return false;
        };
        ours.as_bytes().starts_with(b"\"") && ours != theirs
    }

    /// The body has ended: is the file whole?
    pub(super) fn check_whole(&self) -> Result<(), Trouble> {
        match self.total {
            Some(total) if self.offset < total => Err(Trouble::again(format!(
                "the transfer ended at byte {} of {total}",
                self.offset
            ))),
            _ => Ok(()),
        }
    }

    /// The body broke.
    pub(super) fn broken(&self, error: &hyper::Error) -> Trouble {
        let of = self.total.map_or(String::new(), |t| format!(" of {t}"));
        Trouble::again(format!(
            "the transfer broke at byte {}{of} ({error})",
            self.offset
        ))
    }
}

/// `bytes 5-9/10` → (5, Some(10)).
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let value = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    let (range, total) = value.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, _) = range.split_once('-')?;
    Some((first.trim().parse().ok()?, total.trim().parse().ok()))
}

fn validator(headers: &HeaderMap) -> Option<HeaderValue> {
    let etag = headers.get(header::ETAG);
    if let Some(strong) = etag.filter(|t| t.as_bytes().starts_with(b"\"")) {
        return Some(strong.clone());
    }
    let modified = headers.get(header::LAST_MODIFIED)?;
    let time = |v: &HeaderValue| -> Option<SystemTime> {
        httpdate::parse_http_date(v.to_str().ok()?).ok()
    };
    let age = time(headers.get(header::DATE)?)?
        .duration_since(time(modified)?)
        .ok()?;
    (age >= Duration::from_secs(1)).then(|| modified.clone())
}

/// The pause after the `tries`-th try: doubling, with a quarter of jitter either way so that a
/// hundred pods do not come back together, or what the store asks for if that is longer.
pub(super) fn pause(
    patience: &Patience,
    tries: u32,
    wanted: Option<Duration>,
    jitter: f64,
) -> Duration {
    let doubled = patience
        .first_pause
        .saturating_mul(1 << (tries.clamp(1, 16) - 1));
    let ours = doubled
        .min(patience.longest_pause)
        .mul_f64(0.75 + 0.5 * jitter);
    ours.max(wanted.unwrap_or_default())
}

/// 0..1, differing from process to process and from call to call. No key hangs on it.
pub(super) fn jitter() -> f64 {
    RandomState::new().hash_one(0) as f64 / u64::MAX as f64
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(k, v)| (k.parse().unwrap(), v.parse().unwrap()))
            .collect()
    }

    fn broken_at(offset: u64, first_answer: &HeaderMap) -> Partial {
        let mut partial = Partial::default();
        assert_eq!(partial.begin(StatusCode::OK, first_answer), Start::FromZero);
        partial.add(offset);
        partial
    }

    #[test]
    fn a_strong_etag_is_asked_for_and_only_the_same_file_is_taken_up() {
        let first = headers(&[("etag", "\"a\""), ("content-length", "10")]);
        let asked = broken_at(4, &first).conditions();
        assert_eq!(asked[header::RANGE], "bytes=4-");
        assert_eq!(asked[header::IF_RANGE], "\"a\"");
        let cases = [
            ("bytes 4-9/10", "\"a\"", Start::Resume),
            ("bytes 4-9/*", "\"a\"", Start::Resume),
            ("bytes 3-9/10", "\"a\"", Start::Mismatch),
            ("bytes 4-11/12", "\"a\"", Start::Mismatch),
            ("bytes 4-9/10", "\"b\"", Start::Mismatch),
            ("nonsense", "\"a\"", Start::Mismatch),
        ];
        for (range, etag, start) in cases {
            let answer = headers(&[("content-range", range), ("etag", etag)]);
            let mut partial = broken_at(4, &first);
            assert_eq!(
                partial.begin(StatusCode::PARTIAL_CONTENT, &answer),
                start,
                "{range} {etag}"
            );
        }
        let mut partial = broken_at(4, &first);
        assert_eq!(partial.begin(StatusCode::OK, &first), Start::FromZero);
        assert_eq!(partial.offset(), 0);
        assert_eq!(partial.best(), 4);
    }

    #[test]
    fn without_proof_of_the_same_bytes_nothing_is_resumed() {
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        let weak = [
            headers(&[]),
            headers(&[("etag", "W/\"a\"")]),
            headers(&[("last-modified", date)]),
            headers(&[("last-modified", date), ("date", date)]),
        ];
        for first in &weak {
            assert!(broken_at(4, first).conditions().is_empty(), "{first:?}");
            let mut partial = broken_at(4, first);
            let answer = headers(&[("content-range", "bytes 4-9/10")]);
            assert_eq!(
                partial.begin(StatusCode::PARTIAL_CONTENT, &answer),
                Start::Mismatch
            );
        }
        let old = headers(&[
            ("last-modified", date),
            ("date", "Sun, 06 Nov 1994 08:49:38 GMT"),
        ]);
        assert_eq!(broken_at(4, &old).conditions()[header::IF_RANGE], date);
        assert!(broken_at(0, &old).conditions().is_empty());
    }

    #[test]
    fn five_tries_fit_into_the_window_and_a_longer_wish_is_heard() {
        let patience = Patience::default();
        let total: Duration = (1..patience.tries)
            .map(|n| pause(&patience, n, None, 1.0))
            .sum();
        assert!(total < patience.window, "{total:?}");
        assert_eq!(pause(&patience, 1, None, 0.5), Duration::from_secs(1));
        assert_eq!(pause(&patience, 3, None, 0.5), Duration::from_secs(4));
        let wish = Some(Duration::from_secs(20));
        assert_eq!(pause(&patience, 1, wish, 0.5), Duration::from_secs(20));
        assert!((0.0..=1.0).contains(&jitter()));
    }

    proptest! {
        #[test]
        fn pauses_are_bounded_and_no_header_makes_it_panic(
            tries in 0u32..1000, jitter in 0.0f64..=1.0, text in "[ -~]{0,40}", offset in 0u64..100
        ) {
            let patience = Patience::default();
            prop_assert!(pause(&patience, tries, None, jitter) <= patience.longest_pause.mul_f64(1.25));
            let answer = headers(&[("content-range", &text), ("content-length", &text), ("etag", &text),
                ("last-modified", &text), ("date", &text)]);
            let mut partial = broken_at(offset, &answer);
            let _ = partial.conditions();
            let _ = partial.begin(StatusCode::PARTIAL_CONTENT, &answer);
        }
    }
}
