//! How a revision is doing, from its Deployment and its pods.

use k8s_openapi::{
    api::{apps::v1::Deployment, core::v1::Pod},
    jiff::Timestamp,
};

use crate::failure::{self, Cause, Class};

/// How a revision is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Whether it has a Deployment.
    pub deployed: bool,
    /// Pods that exist, those on their way out too.
    pub pods: i32,
    /// Pods that take requests.
    pub ready: i32,
    /// Why pods do not serve, when something is known to be wrong.
    pub cause: Option<Cause>,
}

impl Health {
    /// Reads a revision's health.
    #[must_use]
    pub fn of(deployment: Option<&Deployment>, pods: &[&Pod], now: Timestamp) -> Self {
        let alive: Vec<&Pod> = pods
            .iter()
            .copied()
            .filter(|pod| !failure::is_over(pod))
            .collect();
        let ready = pods.iter().filter(|pod| failure::is_ready(pod)).count();
        let mut cause = failure::diagnose(deployment, pods, now);
        if let Some(late) = deployment.and_then(past_deadline) {
            let why = cause.take();
            let message = match &why {
                Some(why) => format!("{} ({late})", why.message),
                None => late,
            };
            let (reason, exit_code) = match why {
                Some(why) => (why.reason, why.exit_code),
                None => ("ProgressDeadlineExceeded".into(), None),
            };
            cause = Some(Cause {
                reason,
                message,
                exit_code,
                class: Class::Terminal,
            });
        }
        Self {
            deployed: deployment.is_some(),
            pods: count(alive.len()),
            ready: count(ready),
            cause,
        }
    }

    /// Whether as many pods as wanted take requests.
    #[must_use]
    pub const fn serves(&self, wanted: i32) -> bool {
        self.deployed && wanted > 0 && self.ready >= wanted
    }

    /// The cause for which waiting does not help.
    #[must_use]
    pub fn failed(&self) -> Option<&Cause> {
        self.cause
            .as_ref()
            .filter(|cause| cause.class == Class::Terminal)
    }
}

fn count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

/// The Deployment's own deadline, which ends with the first time that all its pods were available.
fn past_deadline(deployment: &Deployment) -> Option<String> {
    let conditions = deployment.status.as_ref()?.conditions.as_ref()?;
    let progressing = conditions.iter().find(|c| c.type_ == "Progressing")?;
    if progressing.reason.as_deref() != Some("ProgressDeadlineExceeded") {
        return None;
    }
    let seconds = deployment
        .spec
        .as_ref()?
        .progress_deadline_seconds
        .unwrap_or(600);
    Some(format!(
        "not ready within its progress deadline of {} min",
        seconds / 60
    ))
}
