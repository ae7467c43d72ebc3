//! What a try says about its pod, whether another one may follow, and what the client is told when none does.

use std::time::Duration;

use http::{StatusCode, header};
use http_body_util::{BodyExt, Limited};
use tokio::time::timeout;
use tower::retry::budget::Budget;

use crate::{
    answer::Connection,
    exchange::{self, Failed},
    live::{Live, Place},
    refusal::{Refusal, is_free_to_retry},
    table::Settings,
};

/// What of an answer that is not passed on is read, so that its connection can be used again.
const LEFTOVER: usize = 8 << 10;
const LEFTOVER_PATIENCE: Duration = Duration::from_millis(50);

/// Why a request may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The pod takes no connection.
    Connect,
    /// The connection was lost.
    Lost,
    /// The pod said that it did not begin.
    Busy,
}

impl Cause {
    /// As the counters call it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Lost => "lost",
            Self::Busy => "busy",
        }
    }
}

/// What a try says about its pod, and whether another may follow.
pub fn judge(place: &Place, sent: &Result<exchange::Answered, Failed>) -> Option<Cause> {
    let (is_fine, cause) = match sent {
        Ok((answer, _)) if is_free_to_retry(answer.status(), answer.headers()) => {
            (true, Some(Cause::Busy))
        }
        Ok((answer, _)) => {
            let is_wanted = || answer.headers().contains_key(header::RETRY_AFTER);
            (!answer.status().is_server_error() || is_wanted(), None)
        }
        Err(Failed::Connect(_)) => (false, Some(Cause::Connect)),
        Err(Failed::Lost(_)) => (false, Some(Cause::Lost)),
        Err(Failed::Late) => (false, None),
    };
    if is_fine {
        place.pod.succeeded();
    } else if place.revision.failed(&place.pod) {
        place.live.meter.ejections.inc();
        tracing::warn!(
            service = %place.live.name, revision = &*place.revision.name, pod = %place.pod.address,
            "requests to a pod fail: it is left out for a while"
        );
    }
    cause
}

/// Whether a request that was tried `tries` times before may be sent again, by its service and its budget.
#[must_use]
pub fn is_allowed(cause: Cause, tries: u32, settings: &Settings, live: &Live) -> bool {
    let is_safe = match cause {
        Cause::Lost => !settings.stateful,
        Cause::Connect | Cause::Busy => true,
    };
    tries < settings.retries && is_safe && live.budget.withdraw()
}

/// Reads the rest of an answer that is not passed on, if it is short, so that the connection can be used again; not
/// when it still waits for the rest of the request (`is_sent`).
pub async fn put_aside(place: Place, (answer, connection): exchange::Answered, is_sent: bool) {
    if !is_sent {
        return;
    }
    let read = Limited::new(answer.into_body(), LEFTOVER).collect();
    if let (Ok(Ok(_)), Connection::One(sender)) =
        (timeout(LEFTOVER_PATIENCE, read).await, connection)
    {
        place.pod.pool.put(sender);
    }
}

/// What the client is told in the end.
#[must_use]
pub fn refusal(place: &Place, settings: &Settings, failed: &Failed) -> Refusal {
    let (pod, service) = (place.pod.address, &place.live.name);
    match failed {
        Failed::Connect(error) => Refusal::unavailable(
            "connect",
            1,
            format!("the pod {pod} of {service} cannot be reached: {error}; try again"),
        ),
        Failed::Lost(_) => Refusal::new(
            StatusCode::BAD_GATEWAY,
            "lost",
            format!(
                "the pod {pod} of {service} broke off before it answered; the request may have run"
            ),
        ),
        Failed::Late => late(&place.live, settings, failed),
    }
}

/// That no answer came in time.
#[must_use]
pub fn late(live: &Live, settings: &Settings, failed: &Failed) -> Refusal {
    let message = format!(
        "{} did not answer within {} s, as long as its requests may take: {failed}",
        live.name,
        settings.timeout.as_secs_f64()
    );
    Refusal::new(StatusCode::GATEWAY_TIMEOUT, "timeout", message)
}
