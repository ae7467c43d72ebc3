//! A build without the feature `otlp`: there are no traces, and who asks for some is told so at the start.

use http::Request;
use ortolan_model::{Failure, Reason};

use super::{
    ObserveOptions,
    context::{Parent, TraceId},
    trail::{Story, Trail},
};

/// There are none.
#[derive(Debug)]
pub(super) enum Traces {}

/// There is none.
#[derive(Debug)]
pub(super) enum Span {}

impl Traces {
    /// None, or a refusal. What `OTEL_…` says to all programs around is not for this one.
    pub(super) fn new(options: &ObserveOptions, _scheme: &str) -> Result<Option<Self>, Failure> {
        if options.otlp_endpoint.is_none() && options.trace_ratio.is_none() {
            return Ok(None);
        }
        Err(Failure::new(
            Reason::InvalidConfig,
            "--otlp-endpoint and --trace-ratio need traces, and this ortolan-server was built without them; \
             leave the options out, or build it with the feature otlp, which is on by default",
        ))
    }

    pub(super) fn begin<B>(&self, _: &Request<B>, _: Option<&Parent>) -> Option<Span> {
        match *self {}
    }

    pub(super) fn below(&self, _: &Span) -> Span {
        match *self {}
    }

    pub(super) fn end(&self, _: &Trail, _: &Story, _: &Span) {
        match *self {}
    }

    pub(super) fn finish(&self) {
        match *self {}
    }
}

impl Span {
    pub(super) fn trace_id(&self) -> TraceId {
        match *self {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_without_traces_refuses_to_be_asked_for_some() {
        let none = Traces::new(&ObserveOptions::default(), "http").unwrap();
        assert!(none.is_none());
        let endpoint = ObserveOptions {
            otlp_endpoint: Some("http://127.0.0.1:4318".parse().unwrap()),
            ..ObserveOptions::default()
        };
        let ratio = ObserveOptions {
            trace_ratio: Some(0.5),
            ..ObserveOptions::default()
        };
        for options in [endpoint, ratio] {
            let failure = Traces::new(&options, "http").unwrap_err();
            assert_eq!(failure.reason, Reason::InvalidConfig);
            assert!(failure.to_string().contains("built without"), "{failure}");
        }
    }
}
