//! Events: the story that `kubectl describe` tells.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client, Resource,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use ortolan_core::notice::Notice;
use ortolan_crds::InferenceService;

/// The API's limits on an event's note and action, in bytes.
const MAX_NOTE: usize = 1024;
const MAX_ACTION: usize = 128;

/// Publishes notices as events about an InferenceService.
#[derive(Clone)]
pub struct Teller(Recorder);

impl Teller {
    /// `instance` names this process among its replicas.
    #[must_use]
    pub fn new(client: Client, instance: &str) -> Self {
        let reporter = Reporter {
            controller: "ortolan".into(),
            instance: Some(instance.to_owned()),
        };
        Self(Recorder::new(client, reporter))
    }

    /// Tells everything; a notice that cannot be told is logged and does not stop the work.
    pub async fn tell(&self, service: &InferenceService, notices: &[Notice]) {
        let about: ObjectReference = service.object_ref(&());
        for notice in notices {
            let event = Event {
                type_: if notice.warning {
                    EventType::Warning
                } else {
                    EventType::Normal
                },
                reason: cut(&notice.reason, MAX_ACTION),
                note: Some(cut(&notice.message, MAX_NOTE)),
                // The recorder takes events with one action and reason for repetitions of the first,
                // whatever their note says.
                action: cut(&notice.message, MAX_ACTION),
                secondary: None,
            };
            if let Err(error) = self.0.publish(&event, &about).await {
                tracing::warn!(%error, reason = notice.reason, "an event could not be published");
            }
        }
    }
}

fn cut(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let ellipsis = '…';
    let end = text.floor_char_boundary(limit - ellipsis.len_utf8());
    format!("{}{ellipsis}", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_at_a_character_and_within_the_limit() {
        assert_eq!(cut("short", 10), "short");
        let cut = cut(&"ü".repeat(100), 20);
        assert!(cut.len() <= 20 && cut.ends_with('…'), "{cut}");
    }
}
