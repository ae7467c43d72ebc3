//! The W3C trace context of a request: which trace it belongs to, and which span of its caller asked.
//!
//! Input: the headers. Output: the caller's span, or `None` where there is none that can be relied on; a context
//! that is malformed in any way is none, as [the recommendation](https://www.w3.org/TR/trace-context-2/) says, and the
//! request begins a trace of its own if it is traced at all.

use std::fmt;

use http::HeaderMap;

/// `traceparent`: version, trace, span and flags, in so many characters.
const LENGTH: usize = 55;
const SAMPLED: u8 = 1;

/// A trace's id; never 0. Shown as in `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId(pub u128);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The caller's span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    /// Its trace.
    pub trace_id: TraceId,
    /// Its own id; never 0.
    pub span_id: u64,
    /// Whether the caller's part of the trace is kept.
    pub is_sampled: bool,
}

/// The caller's span, if the headers name one.
#[must_use]
pub fn of(headers: &HeaderMap) -> Option<Parent> {
    let mut given = headers.get_all("traceparent").iter();
    let parent = parse(given.next()?.as_bytes())?;
    // Of two nobody knows which is the caller's.
    given.next().is_none().then_some(parent)
}

fn parse(text: &[u8]) -> Option<Parent> {
    let (known, rest) = text.split_at_checked(LENGTH)?;
    let version = hex(&known[..2])?;
    // Later versions may have more behind another dash; ff will never be one.
    let is_whole = rest.is_empty() || (version > 0 && rest[0] == b'-');
    let are_apart = [2, 35, 52].iter().all(|dash| known[*dash] == b'-');
    if version == 0xff || !is_whole || !are_apart {
        return None;
    }
    let trace_id = hex(&known[3..35]).filter(|id| *id != 0)?;
    let span_id = hex(&known[36..52]).filter(|id| *id != 0)?;
    let flags = hex(&known[53..])?;
    Some(Parent {
        trace_id: TraceId(trace_id),
        span_id: u64::try_from(span_id).ok()?,
        is_sampled: flags & u128::from(SAMPLED) != 0,
    })
}

/// Small letters only, as the recommendation has it.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some((number << 4) | u128::from(value))
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const TRACE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
    const SPAN: u64 = 0x00f0_67aa_0ba9_02b7;

    fn of_text(text: &str) -> Option<Parent> {
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", text.parse().unwrap());
        of(&headers)
    }

    #[test]
    fn a_callers_span_is_read_and_of_its_flags_whether_it_is_kept() {
        for (text, is_sampled) in [
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                true,
            ),
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
                false,
            ),
            // Level 2's flag of a trace id that is random, alone and with the other.
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-02",
                false,
            ),
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03",
                true,
            ),
            // Versions to come.
            (
                "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                true,
            ),
            (
                "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
                true,
            ),
        ] {
            let parent = of_text(text).unwrap_or_else(|| panic!("{text}"));
            let expected = (TraceId(TRACE), SPAN, is_sampled);
            let read = (parent.trace_id, parent.span_id, parent.is_sampled);
            assert_eq!(read, expected, "{text}");
        }
        assert_eq!(TraceId(1).to_string(), format!("{:0>32}", 1));
    }

    #[test]
    fn what_is_malformed_in_any_way_is_no_caller() {
        for text in [
            "",
            "nonsense",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01 ",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01",
            "0x-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01more",
        ] {
            assert_eq!(of_text(text), None, "{text:?}");
        }
        let mut two = HeaderMap::new();
        for span in ["00f067aa0ba902b7", "00f067aa0ba902b8"] {
            let text = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{span}-01");
            two.append("traceparent", HeaderValue::try_from(text).unwrap());
        }
        assert_eq!(of(&two), None);
        assert_eq!(of(&HeaderMap::new()), None);
    }

    proptest! {
        #[test]
        fn every_callers_span_comes_back_as_it_was_sent(
            trace in 1_u128.., span in 1_u64.., version in 0_u8..255, flags in any::<u8>(),
        ) {
            let text = format!("{version:02x}-{trace:032x}-{span:016x}-{flags:02x}");
            let parent = Parent { trace_id: TraceId(trace), span_id: span, is_sampled: flags & 1 == 1 };
            prop_assert_eq!(of_text(&text), Some(parent));
        }

        #[test]
        fn nothing_that_a_client_sends_ends_in_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..70)) {
            let _ = parse(&bytes);
        }
    }
}
