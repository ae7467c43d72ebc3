//! The access log, on demand: one line a request, when it has ended, in the format of the log.

use std::{net::SocketAddr, time::Instant};

use http::{HeaderMap, HeaderValue, Method};

use crate::{live::Place, metrics::End};

/// What the lines are filtered by.
pub const TARGET: &str = "access";

/// What is known of a request before it is answered.
#[derive(Debug)]
pub struct Line {
    /// When it came.
    pub arrived: Instant,
    /// From where.
    pub client: SocketAddr,
    /// How.
    pub method: Method,
    /// The path as it came, without the query: queries may hold secrets.
    pub path: String,
    /// What the client called it by.
    pub host: String,
    /// Of `traceparent`, to find the request in traces.
    pub trace_id: Option<String>,
}

impl Line {
    /// Writes it.
    pub fn write(&self, place: Option<&Place>, end: End) {
        let code = match end {
            End::Http(code) | End::Grpc(code) => code.to_string(),
            End::Broken => "broken".to_owned(),
            End::Left => "left".to_owned(),
        };
        // Microseconds are enough.
        let ms = self.arrived.elapsed().as_micros() as f64 / 1e3;
        tracing::info!(
            target: TARGET,
            client = %self.client,
            method = self.method.as_str(),
            host = self.host,
            path = self.path,
            code,
            service = place.map(|place| tracing::field::display(&place.live.name)),
            revision = place.map(|place| &*place.revision.name),
            pod = place.map(|place| tracing::field::display(place.pod.address)),
            trace_id = self.trace_id,
            ms,
            "request"
        );
    }
}

/// The trace's number in W3C's `traceparent`, `00-TRACE-SPAN-FLAGS`.
#[must_use]
pub fn trace_id(headers: &HeaderMap) -> Option<String> {
    let value = headers.get("traceparent").map(HeaderValue::to_str)?.ok()?;
    let id = value.split('-').nth(1)?;
    let is_id = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_trace_is_read_and_nonsense_is_none() {
        let of = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", HeaderValue::from_static(text));
            trace_id(&headers)
        };
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(
            of("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").as_deref(),
            Some(id)
        );
        assert_eq!(of("00-short-00f067aa0ba902b7-01"), None);
        assert_eq!(of("nonsense"), None);
        assert_eq!(trace_id(&HeaderMap::new()), None);
    }
}
