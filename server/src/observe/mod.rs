//! What happens to single requests, for those who ask: the access log.
//!
//! ```text
//!  dispatch ─► begin ─► Trail ◄── Meter: phases, code ─┐
//!                         │   ◄── Counted: bytes       │ the task's own
//!                         ▼ last holder gone           ┘
//!                       a line
//! ```
//!
//! Inputs: the options; each request. Invariant: who did not ask pays for one look at an `Option` a request, and
//! one at the task for each phase.

use std::sync::Arc;

use clap::Args;
use http::{HeaderValue, Request};

use self::trail::Trail;

mod access;
pub mod counted;
pub mod trail;

pub use self::access::TARGET as ACCESS_LOG;

/// What is told, beyond the metrics and the log of the server itself.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct ObserveOptions {
    /// Write a log line for every request: what was asked, the answer's code, how long each phase took.
    #[arg(long, env = "ORTOLAN_ACCESS_LOG")]
    pub access_log: bool,

    /// Show the models' counts under the names of Triton's metrics, too: nv_inference_count and the like.
    #[arg(long, env = "ORTOLAN_TRITON_METRICS")]
    pub triton_metrics: bool,
}

/// Where single requests are told of.
#[derive(Clone, Copy, Debug)]
struct Outlets {
    access_log: bool,
}

/// Follows requests if anybody asked for it. The default follows none.
#[derive(Clone, Debug, Default)]
pub struct Observer(Option<Arc<Outlets>>);

impl Observer {
    /// As the options say.
    #[must_use]
    pub fn new(options: &ObserveOptions) -> Self {
        let outlets = Outlets {
            access_log: options.access_log,
        };
        Self(outlets.access_log.then(|| Arc::new(outlets)))
    }

    /// The trail of a request that begins, if requests are followed.
    #[must_use]
    pub fn begin<B>(&self, request: &Request<B>, id: &HeaderValue) -> Option<Arc<Trail>> {
        let outlets = self.0.as_ref()?;
        Some(Arc::new(Trail::new(Arc::clone(outlets), request, id)))
    }
}
