//! The id of a request: what its client calls it, or one of ours. It comes back in every answer and stands in
//! every log line of the request.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

use http::{HeaderMap, HeaderName, HeaderValue};

/// In requests and answers.
pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// Longer ids than anybody makes; they would fill the log.
const MAX: usize = 128;

/// Tells this process's ids from those of another.
static PROCESS: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(std::process::id()));
static COUNT: AtomicU64 = AtomicU64::new(0);

/// The client's id if it is one to 128 visible characters of ASCII, else a new one.
#[must_use]
pub fn of(headers: &HeaderMap) -> HeaderValue {
    let given = headers.get(&HEADER).filter(|id| {
        let id = id.as_bytes();
        (1..=MAX).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
    });
    given.cloned().unwrap_or_else(fresh)
}

/// Sixteen digits of the process and twelve of the count, which last a hundred years at 60,000 a second. By hand: every
/// request without an id of its own gets one.
fn fresh() -> HeaderValue {
    const DIGITS: usize = 28;
    let count = COUNT.fetch_add(1, Ordering::Relaxed) & ((1 << 48) - 1);
    let number = (u128::from(*PROCESS) << 48) | u128::from(count);
    let id: [u8; DIGITS] = std::array::from_fn(|place| {
        let digit = (number >> (4 * (DIGITS - 1 - place))) & 15;
        b"0123456789abcdef"[digit as usize]
    });
    HeaderValue::from_bytes(&id).unwrap_or(HeaderValue::from_static("unknown"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_text(id: &str) -> HeaderValue {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, HeaderValue::from_bytes(id.as_bytes()).unwrap());
        of(&headers)
    }

    #[test]
    fn a_clients_id_is_kept_and_a_bad_one_replaced() {
        let longest = "x".repeat(MAX);
        for id in ["a", "7f3e-11", &longest] {
            assert_eq!(of_text(id), id);
        }
        let too_long = "x".repeat(MAX + 1);
        for id in ["", "a b", "é", "a\tb", &too_long] {
            assert_eq!(of_text(id).len(), 28, "{id:?}");
        }
        assert_ne!(of(&HeaderMap::new()), of(&HeaderMap::new()));
    }
}
