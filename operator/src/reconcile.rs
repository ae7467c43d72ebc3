//! One reconcile: observe → plan (pure) → apply → status → events. It reads like that line.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::{Resource, core::DeserializeGuard, runtime::controller::Action};
use ortolan_core::{
    backoff,
    observed::Observed,
    plan::{self, Plan, Write},
    status,
    validate::Defaults,
};
use ortolan_crds::{InferenceService, InferenceServiceStatus};

use crate::{
    apply::{self, Class, Writer},
    context::{Context, TIMEOUT},
    index::Key,
    observe,
};

/// Numbers of pods alone change a status no more often than this.
const COUNTS_EVERY: Duration = Duration::from_secs(5);

/// A status that was decided for an older version is decided again after this time, if the watch brings nothing before.
const AGAIN: Duration = Duration::from_secs(1);

/// Examples of answers that differ are written no more often than this; what fails is tried again as late.
const EXAMPLES_EVERY: Duration = Duration::from_secs(10);

/// What the watch brings: an object that cannot be read must not blind us to the others.
pub type Watched = DeserializeGuard<InferenceService>;

/// Why a reconcile did not finish.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Reading failed.
    #[error(transparent)]
    Observe(#[from] observe::Error),
    /// Writing failed.
    #[error(transparent)]
    Apply(#[from] apply::Error),
    /// It took too long.
    #[error("not finished within {} s", TIMEOUT.as_secs())]
    Timeout,
}

impl Error {
    /// For the metric and the log.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Observe(error) => error.reason(),
            Self::Apply(error) => error.reason(),
            Self::Timeout => "Timeout",
        }
    }
}

/// The key of what the watch brought.
#[must_use]
pub fn key(watched: &Watched) -> Key {
    let meta = watched.meta();
    Key {
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
    }
}

/// Works on one InferenceService, if we lead.
///
/// # Errors
/// What is worth trying again; [`on_error`] says when.
pub async fn reconcile(watched: Arc<Watched>, context: Arc<Context>) -> Result<Action, Error> {
    if !context.gate.is_open() || !context.indices.are_ready() {
        // Whoever starts to lead, with full caches, looks at everything.
        return Ok(Action::await_change());
    }
    let key = key(&watched);
    let service = match &watched.0 {
        Ok(service) => service.clone(),
        Err(invalid) => {
            tracing::error!(service = key.name, namespace = key.namespace, error = %invalid,
                "an InferenceService cannot be read by this version of the operator: left alone");
            context.metrics.failed("Unreadable");
            return Ok(Action::await_change());
        }
    };
    let started = std::time::Instant::now();
    let work = work(&context, &key, context.newest(&key, service));
    let result = tokio::time::timeout(TIMEOUT, work)
        .await
        .unwrap_or(Err(Error::Timeout));
    context
        .metrics
        .reconciled(started.elapsed(), result.is_ok());
    if result.is_ok() {
        context.succeeded(&key);
    }
    result
}

async fn work(context: &Context, key: &Key, service: InferenceService) -> Result<Action, Error> {
    let seen = observe::observe(context, key, service).await?;
    let observed = seen.observed;
    let mut plan = plan::plan(&observed, &context.defaults, Timestamp::now());
    let requeue = plan.requeue.into_iter().chain(seen.ask_again).min();
    let writer = Writer::new(context, key, observed.uid());
    match writer.apply(std::mem::take(&mut plan.writes)).await {
        Ok(()) => {
            let later = report(context, &writer, &observed, &plan).await?;
            let examples = keep_examples(context, &writer, plan.examples.take()).await;
            let next = requeue.into_iter().chain(later).chain(examples).min();
            Ok(next.map_or_else(Action::await_change, Action::requeue))
        }
        Err(error) => {
            if let Some(mut refusal) = refusal(&observed, &context.defaults, &error) {
                // The revision that serves is looked after all the same; the first error says more than one of this.
                if let Err(also) = writer.apply(std::mem::take(&mut refusal.writes)).await {
                    tracing::warn!(service = key.name, namespace = key.namespace, error = %also,
                        "the revision that serves cannot be looked after");
                }
                report(context, &writer, &observed, &refusal).await?;
                if error.class() == Class::Terminal {
                    return Ok(Action::await_change());
                }
            }
            Err(error.into())
        }
    }
}

/// Examples of answers that differ. Where they cannot be kept nothing else suffers. Answers when to come back, if it is
/// too early, or was in vain.
async fn keep_examples(
    context: &Context,
    writer: &Writer<'_>,
    write: Option<Write>,
) -> Option<Duration> {
    let write = write?;
    if let Err(left) = context.may_write_examples(writer.key(), EXAMPLES_EVERY) {
        return Some(left);
    }
    let error = writer.apply(vec![write]).await.err()?;
    let key = writer.key();
    context.metrics.failed(error.reason());
    tracing::warn!(service = key.name, namespace = key.namespace, %error,
        "examples of answers that differ cannot be kept");
    (error.class() == Class::Transient).then_some(EXAMPLES_EVERY)
}

/// The status, when it differs, and then the events. Answers when to come back, if only numbers of pods differ
/// and the status was written a moment ago: while pods come and go, each of them would be a write.
async fn report(
    context: &Context,
    writer: &Writer<'_>,
    observed: &Observed,
    plan: &Plan,
) -> Result<Option<Duration>, apply::Error> {
    let before = observed.service.status.as_ref();
    let mut later = None;
    if let Some(status) = plan.status.as_ref().filter(|s| before != Some(s)) {
        if !status::is_news(before, status) {
            let told = context.told(writer.key());
            later = told.and_then(|ago| COUNTS_EVERY.checked_sub(ago));
        }
        if later.is_none() {
            let version = observed.service.metadata.resource_version.as_deref();
            writer.status(status, version).await?;
        }
        let of = |status: &InferenceServiceStatus| status.rollout.clone();
        let (was, now) = (before.and_then(of), of(status));
        // A state that was not written is worked out again: what ends is counted with its write.
        if later.is_none() {
            context
                .metrics
                .rollout(writer.key(), was.as_ref(), now.as_ref());
        }
    }
    if context.gate.is_open() {
        context.teller.tell(&observed.service, &plan.notices).await;
    }
    for notice in &plan.notices {
        tracing::info!(
            service = observed.name(),
            namespace = observed.namespace(),
            reason = notice.reason,
            "{}",
            notice.message
        );
    }
    Ok(later)
}

/// What people are told of a write that was refused; errors that pass by themselves are only logged.
fn refusal(observed: &Observed, defaults: &Defaults, error: &apply::Error) -> Option<Plan> {
    let (foreign, message) = match error {
        apply::Error::Foreign(foreign) => (Some(foreign), plan::collision(foreign)),
        apply::Error::Refused { .. } => (None, error.to_string()),
        apply::Error::Api {
            source: kube::Error::Api(status),
            ..
        } if status.code == 403 => {
            return Some(plan::refuse(
                observed,
                "Forbidden",
                &error.to_string(),
                Timestamp::now(),
            ));
        }
        apply::Error::NotLeading | apply::Error::Outdated(_) | apply::Error::Api { .. } => {
            return None;
        }
    };
    Some(plan::keep(
        observed,
        defaults,
        foreign,
        error.reason(),
        &message,
        Timestamp::now(),
    ))
}

/// When to try again: kube does not count the failures, so we do.
#[must_use]
pub fn on_error(watched: Arc<Watched>, error: &Error, context: Arc<Context>) -> Action {
    let key = key(&watched);
    if let Error::Apply(apply::Error::NotLeading) = error {
        return Action::await_change();
    }
    if let Error::Apply(apply::Error::Outdated(_)) = error {
        // The watch brings what has changed; this is for when it is behind.
        tracing::debug!(service = key.name, namespace = key.namespace, %error, "once more");
        return Action::requeue(AGAIN);
    }
    context.metrics.failed(error.reason());
    let failures = context.failed(&key);
    let delay = backoff::delay(failures, jitter(&key, failures));
    tracing::warn!(service = key.name, namespace = key.namespace, reason = error.reason(), %error,
        failures, retry_in = ?delay, "a reconcile did not finish");
    Action::requeue(delay)
}

/// A number in 0..=1 that differs between objects and tries: what jitter needs, and no more.
fn jitter(key: &Key, failures: u32) -> f64 {
    use std::hash::{BuildHasher, RandomState};
    let drawn = RandomState::new().hash_one((key, failures)) >> 32;
    f64::from(u32::try_from(drawn).unwrap_or(u32::MAX)) / f64::from(u32::MAX)
}
