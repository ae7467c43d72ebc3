//! What the operator tells people in events: the story that `kubectl describe` shows.

/// One event, about an InferenceService.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Whether somebody may have to do something.
    pub warning: bool,
    /// CamelCase, the same word as in the condition where there is one.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

impl Notice {
    /// Something that went as it should.
    #[must_use]
    pub fn normal(reason: &str, message: impl Into<String>) -> Self {
        Self {
            warning: false,
            reason: reason.into(),
            message: message.into(),
        }
    }

    /// Something that somebody may have to look at.
    #[must_use]
    pub fn warning(reason: &str, message: impl Into<String>) -> Self {
        Self {
            warning: true,
            reason: reason.into(),
            message: message.into(),
        }
    }
}
