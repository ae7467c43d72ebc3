//! Answers of the router itself: a code and a sentence, as JSON or as a status of gRPC.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::{
    answer::Answer, body::Fault, headers::GRPC_STATUS, hold::Full as Crowd, live::NoPlace,
    table::ServiceName, target::Lost,
};

/// When a call may be tried again.
const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");
/// gRPC's messages are percent-encoded ASCII.
const MESSAGE: &AsciiSet = &CONTROLS.add(b'%');

/// An answer that is no success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP code.
    pub code: StatusCode,
    /// The status of gRPC.
    pub status: u8,
    /// What was wrong and what to do, for a person.
    pub message: String,
    /// In a word, for the counters.
    pub reason: &'static str,
    /// Seconds until the client should try again; 0: at once, nothing was lost.
    pub retry_after: Option<u32>,
}

/// Statuses of gRPC.
mod status {
    pub const INVALID_ARGUMENT: u8 = 3;
    pub const DEADLINE_EXCEEDED: u8 = 4;
    pub const NOT_FOUND: u8 = 5;
    pub const PERMISSION_DENIED: u8 = 7;
    pub const RESOURCE_EXHAUSTED: u8 = 8;
    pub const UNIMPLEMENTED: u8 = 12;
    pub const INTERNAL: u8 = 13;
    pub const UNAVAILABLE: u8 = 14;
}

impl Refusal {
    /// With a code, a word and a sentence.
    #[must_use]
    pub fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        let status = match code {
            StatusCode::BAD_REQUEST | StatusCode::REQUEST_TIMEOUT => status::INVALID_ARGUMENT,
            StatusCode::FORBIDDEN => status::PERMISSION_DENIED,
            StatusCode::NOT_FOUND => status::NOT_FOUND,
            StatusCode::PAYLOAD_TOO_LARGE | StatusCode::TOO_MANY_REQUESTS => {
                status::RESOURCE_EXHAUSTED
            }
            StatusCode::NOT_IMPLEMENTED => status::UNIMPLEMENTED,
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE => status::UNAVAILABLE,
            StatusCode::GATEWAY_TIMEOUT => status::DEADLINE_EXCEEDED,
            _ => status::INTERNAL,
        };
        Self {
            code,
            status,
            message: message.into(),
            reason,
            retry_after: None,
        }
    }

    /// 503, and when to come again.
    #[must_use]
    pub fn unavailable(reason: &'static str, retry_after: u32, message: impl Into<String>) -> Self {
        Self {
            retry_after: Some(retry_after),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, reason, message)
        }
    }

    /// Because its client sends more than so many a second.
    #[must_use]
    pub fn too_many(rate: u32, wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        let message = format!(
            "one client may send {rate} requests a second, and this one sends more; try again in {seconds} s"
        );
        Self {
            retry_after: Some(u32::try_from(seconds).unwrap_or(u32::MAX / 1000)),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, "client_rate", message)
        }
    }

    /// Because no pod could take the request.
    #[must_use]
    pub fn no_place(why: NoPlace, service: &ServiceName, held: usize, waited: Duration) -> Self {
        match why {
            NoPlace::Full(crowd) => {
                let bound = match crowd {
                    Crowd::Requests => "as many as may",
                    Crowd::Bytes => {
                        "and their bodies take all the memory that is set aside for that"
                    }
                };
                let message =
                    format!("{held} requests wait for a pod of {service}, {bound}; try again");
                Self {
                    status: status::RESOURCE_EXHAUSTED,
                    ..Self::unavailable("hold_full", 1, message)
                }
            }
            NoPlace::Late => {
                let message = format!(
                    "no pod of {service} could take the request within {} s; {held} more requests wait; try again",
                    waited.as_secs_f64()
                );
                Self::unavailable("hold_timeout", 1, message)
            }
            NoPlace::Ending => {
                let message = format!(
                    "this router ends, and no pod of {service} is there yet; try again, another one answers"
                );
                Self::unavailable("ending", 0, message)
            }
            NoPlace::Gone => Self::new(
                StatusCode::NOT_FOUND,
                "service",
                format!("the service {service} was deleted while the request waited for a pod"),
            ),
        }
    }

    /// As the client reads it.
    #[must_use]
    pub fn answer(&self, is_grpc: bool) -> Response<Answer> {
        if is_grpc {
            return self.grpc_answer();
        }
        let body = serde_json::json!({ "error": self.message }).to_string();
        let mut answer = Response::new(Answer::whole(Full::new(Bytes::from(body))));
        *answer.status_mut() = self.code;
        let headers = answer.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        answer
    }

    fn grpc_answer(&self) -> Response<Answer> {
        let mut answer = Response::new(Answer::whole(Full::default()));
        let headers = answer.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/grpc"),
        );
        headers.insert("grpc-status", u16::from(self.status).into());
        let message = utf8_percent_encode(&self.message, MESSAGE).to_string();
        if let Ok(message) = HeaderValue::try_from(message) {
            headers.insert("grpc-message", message);
        }
        if let Some(seconds) = self.retry_after {
            headers.insert("grpc-retry-pushback-ms", (seconds * 1000).into());
        }
        answer
    }
}

impl From<Lost> for Refusal {
    fn from(lost: Lost) -> Self {
        let reason = match &lost {
            Lost::Service { .. } => "service",
            Lost::Path(_) => "path",
            _ => "host",
        };
        Self::new(lost.code(), reason, lost.to_string())
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        let code = match fault {
            Fault::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Fault::Stalled(_) => StatusCode::REQUEST_TIMEOUT,
            Fault::Left | Fault::Superseded => StatusCode::BAD_REQUEST,
        };
        Self::new(code, "body", fault.to_string())
    }
}

/// Whether an answer says that the pod did not begin with the request, so that another may have it at once.
#[must_use]
pub fn is_free_to_retry(code: StatusCode, headers: &HeaderMap) -> bool {
    let is_zero = |name: HeaderName| headers.get(name).is_some_and(|value| value == "0");
    if code == StatusCode::SERVICE_UNAVAILABLE {
        return is_zero(header::RETRY_AFTER);
    }
    // A status in the head: there is no message.
    let status = headers.get(GRPC_STATUS).map(HeaderValue::as_bytes);
    matches!(status, Some(b"8" | b"14")) && is_zero(PUSHBACK)
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_refusal_is_a_sentence_in_json_or_a_status_of_grpc() {
        let refusal = Refusal::unavailable("x", 1, "100 % — try again");
        let answer = refusal.answer(false);
        assert_eq!(
            (answer.status(), &answer.headers()["retry-after"]),
            (
                StatusCode::SERVICE_UNAVAILABLE,
                &HeaderValue::from_static("1")
            )
        );
        let body = answer.into_body().collect().await.ok().unwrap().to_bytes();
        assert_eq!(body, r#"{"error":"100 % — try again"}"#);
        let answer = refusal.answer(true);
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["grpc-status"], "14");
        assert_eq!(answer.headers()["grpc-retry-pushback-ms"], "1000");
        assert_eq!(
            answer.headers()["grpc-message"],
            "100 %25 %E2%80%94 try again"
        );
    }

    #[test]
    fn only_an_answer_that_says_so_may_be_asked_for_again() {
        for (code, headers, free) in [
            (503, vec![("retry-after", "0")], true),
            (503, vec![("retry-after", "1")], false),
            (503, vec![], false),
            (500, vec![("retry-after", "0")], false),
            (
                200,
                vec![("grpc-status", "8"), ("grpc-retry-pushback-ms", "0")],
                true,
            ),
            (
                200,
                vec![("grpc-status", "14"), ("grpc-retry-pushback-ms", "0")],
                true,
            ),
            (
                200,
                vec![("grpc-status", "13"), ("grpc-retry-pushback-ms", "0")],
                false,
            ),
            (200, vec![("grpc-status", "14")], false),
            (200, vec![], false),
        ] {
            let mut map = HeaderMap::new();
            for (name, value) in &headers {
                map.insert(*name, HeaderValue::from_static(value));
            }
            let code = StatusCode::from_u16(code).unwrap();
            assert_eq!(is_free_to_retry(code, &map), free, "{code} {headers:?}");
        }
    }
}
