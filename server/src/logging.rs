//! Log lines on stderr, for people or as JSON. `ORTOLAN_LOG` (or `RUST_LOG`) filters them.
//!
//! A line that is written for a request carries its id, and its trace's. The span that says so is made when such a line is
//! written, which is seldom, and not for every request.

use std::{env, fmt, future::Future, io::IsTerminal};

use http::HeaderValue;
use tracing::{Event, Level, Span, Subscriber};
use tracing_subscriber::{
    filter::Targets,
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    layer::{Layer, SubscriberExt},
    registry,
    registry::LookupSpan,
    util::SubscriberInitExt,
};

use crate::{
    observe::{ACCESS_LOG, context::TraceId},
    options::LogFormat,
};

/// What goes wrong inside ONNX Runtime comes back as an error and is told from there; its own lines would let
/// any client with a wrong tensor fill the log.
///
/// A directive holds for every target that starts with its name, and ours start with `ort`, too.
const DEFAULT: &str = "info,ort=off,ortolan=info";

/// Starts logging. A second call changes nothing. Who asks for the access log gets it whatever the filter says
/// of the rest.
pub fn start(format: LogFormat, access_log: bool) {
    let wanted = ["ORTOLAN_LOG", "RUST_LOG"]
        .into_iter()
        .filter_map(|name| env::var(name).ok())
        .find(|text| !text.is_empty());
    let asked = wanted.as_deref().unwrap_or(DEFAULT);
    let (mut filter, fault) = match asked.parse::<Targets>() {
        Ok(filter) => (filter, None),
        Err(error) => (Targets::new().with_default(Level::INFO), Some(error)),
    };
    if access_log {
        filter = filter.with_target(ACCESS_LOG, Level::INFO);
    }
    let lines = tracing_subscriber::fmt::layer()
        .with_target(false)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let lines = match format {
        LogFormat::Text => lines.map_event_format(WithRequest).boxed(),
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .map_event_format(WithRequest)
            .boxed(),
    };
    // An error only says that a subscriber is there already, as in tests.
    let _ = registry().with(lines).with(filter).try_init();
    if let Some(error) = fault {
        tracing::warn!(
            "ORTOLAN_LOG is {asked:?}, which is no filter ({error}): using info; write LEVEL or TARGET=LEVEL, separated by commas"
        );
    }
}

tokio::task_local! {
    static REQUEST: Whose;
}

/// The request that a task works for.
#[derive(Debug)]
struct Whose {
    id: HeaderValue,
    trace_id: Option<TraceId>,
}

/// Does the work of a request: the lines that it writes carry these.
pub async fn within<T>(
    id: HeaderValue,
    trace_id: Option<TraceId>,
    work: impl Future<Output = T>,
) -> T {
    REQUEST.scope(Whose { id, trace_id }, work).await
}

/// The span of the request that this task works for.
fn span() -> Option<Span> {
    let of = |whose: &Whose| {
        tracing::error_span!(
            "request",
            id = whose.id.to_str().unwrap_or_default(),
            trace_id = whose.trace_id.map(tracing::field::display)
        )
    };
    REQUEST.try_with(of).ok()
}

/// Writes each line within the span of its request.
struct WithRequest<F>(F);

impl<S, N, F> FormatEvent<S, N> for WithRequest<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let span = span();
        let _entered = span.as_ref().map(Span::enter);
        self.0.format_event(context, writer, event)
    }
}
