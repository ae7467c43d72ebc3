//! When the API server last did not answer us, as the Lease's loop, which asks every 2 s, has seen it.
//! After that the rest of the cluster is behind for a while, although everything seems well again.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use jiff::Timestamp;

/// Shared by who sees it and who has to know. Lost with the process: then nothing is known.
#[derive(Clone, Debug, Default)]
pub struct Outage(Arc<AtomicI64>);

impl Outage {
    /// The API server did not answer just now.
    pub fn seen(&self) {
        self.0
            .store(Timestamp::now().as_millisecond(), Ordering::Relaxed);
    }

    /// When it last did not.
    #[must_use]
    pub fn last(&self) -> Option<Timestamp> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            at => Timestamp::from_millisecond(at).ok(),
        }
    }

    /// Whether an error means that the API server is not there, rather than that it refuses.
    #[must_use]
    pub fn is(error: &kube::Error) -> bool {
        match error {
            kube::Error::Api(status) => status.code >= 500,
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_known_until_the_api_server_did_not_answer() {
        let outage = Outage::default();
        assert_eq!(outage.last(), None);
        outage.clone().seen();
        assert!(outage.last().is_some());
    }
}
