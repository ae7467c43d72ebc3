//! One service as a text: where it stands, what its rollout knows, its revisions, pods, failures and conditions.
//!
//! Pure: a service, its pods and the time go in, lines come out. Nothing is shown that there is nothing to say of.

use jiff::Timestamp;
use kube::ResourceExt as _;
use ortolan_crds::{
    CountStatus, InferenceService, RevisionStatus, RolloutEvidence, RolloutPhase, RolloutStatus,
};

use crate::{
    facts::{self, PodFacts},
    table::Table,
    time,
};

/// How wide a bar of 100 % is: 5 % are one mark.
const BAR: usize = 20;

/// The text.
pub fn view(service: &InferenceService, pods: &[PodFacts], now: Timestamp) -> String {
    let mut parts = vec![head(service)];
    if let Some(rollout) = facts::rollout(service) {
        parts.push(progress(service, rollout, now));
    }
    parts.extend(revisions(service));
    let evidence =
        facts::rollout(service).and_then(|rollout| Some((rollout, rollout.evidence.as_ref()?)));
    parts.extend(evidence.map(|(rollout, evidence)| of_evidence(rollout, evidence)));
    parts.extend(of_pods(pods, now));
    parts.extend(failures(service));
    parts.extend(conditions(service, now));
    parts.join("\n")
}

fn head(service: &InferenceService) -> String {
    let status = service.status.clone().unwrap_or_default();
    let ready = match facts::condition(service, "Ready") {
        Some(ready) => format!("{} {}: {}", ready.status, ready.reason, ready.message),
        None => "Unknown: the operator has not looked at it yet; is it running?".into(),
    };
    let mut lines = format!(
        "Service    {}/{}\nReady      {ready}\n",
        service.namespace().unwrap_or_default(),
        service.name_any()
    );
    if !facts::is_observed(service) && service.status.is_some() {
        lines.push_str("           The spec has changed since: this is still of the one before\n");
    }
    lines.push_str(&format!("Model      {}\n", service.spec.model.uri));
    if let Some(url) = status.url {
        lines.push_str(&format!("URL        {url}\n"));
    }
    lines
}

fn progress(service: &InferenceService, rollout: &RolloutStatus, now: Timestamp) -> String {
    let mut first = facts::phase(rollout);
    if let Some(since) = &rollout.since {
        first.push_str(&format!(", for {}", time::age(since.0, now)));
    }
    if let (Some(weight), true) = (rollout.weight, facts::is_under_way(rollout.phase)) {
        first.push_str(&format!(", {weight} % meant for the candidate"));
    }
    let mut lines = format!("Rollout    {first}\n");
    let mut more = Vec::new();
    let ready = facts::condition(service, "Ready").map(|ready| &ready.message);
    more.extend(
        rollout
            .message
            .clone()
            .filter(|message| Some(message) != ready),
    );
    more.extend(rollout.validation.clone());
    if let Some(reason) = &rollout.paused {
        more.push(format!("It stands still: {}", facts::pause(reason)));
    }
    if let Some(next) = next(&service.name_any(), rollout) {
        more.push(next);
    }
    if let Some(kept) = &rollout.kept {
        more.push(format!(
            "{kept} is kept: `ortolan rollout undo {}` brings it back at once",
            service.name_any()
        ));
    }
    for line in more {
        lines.push_str(&format!("           {line}\n"));
    }
    lines
}

/// What a person can do now.
fn next(name: &str, rollout: &RolloutStatus) -> Option<String> {
    let verb = |verb: &str| format!("`ortolan rollout {verb} {name}`");
    match (rollout.phase, rollout.paused.as_deref()) {
        (RolloutPhase::AwaitingApproval, _) => Some(format!(
            "{} lets it go on, {} takes it back",
            verb("promote"),
            verb("abort")
        )),
        (RolloutPhase::Failed, _) => Some(format!(
            "{} tries it again; a change of the spec tries another one",
            verb("retry")
        )),
        (_, Some("Spec")) => Some("`spec.rollout.paused: false` lets it go on".into()),
        (phase, Some(_)) if facts::is_under_way(phase) => Some(format!(
            "{} lets it go on, {} takes it back",
            verb("resume"),
            verb("abort")
        )),
        _ => None,
    }
}

fn revisions(service: &InferenceService) -> Option<String> {
    let status = service.status.as_ref()?;
    if status.revisions.is_empty() {
        return None;
    }
    let mut table = Table::new(&[
        "REVISION", "ROLE", "TRAFFIC", "PHASE", "PODS", "IMAGE", "DIGEST",
    ]);
    for revision in &status.revisions {
        let share = status
            .traffic
            .iter()
            .find(|share| share.revision == revision.name);
        table.row([
            revision.name.clone(),
            role(service, revision).into(),
            bar(share.map_or(0, |share| share.weight)),
            format!("{:?}", revision.phase),
            format!("{}/{}", revision.ready_replicas, revision.replicas),
            revision.image.clone().unwrap_or_default(),
            revision.digest.as_deref().map(digest).unwrap_or_default(),
        ]);
    }
    Some(table.render())
}

fn role(service: &InferenceService, revision: &RevisionStatus) -> &'static str {
    let Some(rollout) = facts::rollout(service) else {
        return "";
    };
    let is = |name: &Option<String>| name.as_deref() == Some(revision.name.as_str());
    match rollout.phase {
        _ if is(&rollout.stable) => "stable",
        RolloutPhase::Failed if is(&rollout.candidate) => "failed",
        _ if is(&rollout.candidate) => "candidate",
        _ if is(&rollout.kept) => "kept",
        _ => "",
    }
}

/// ` 25% #####...............`
fn bar(weight: i32) -> String {
    let weight = usize::try_from(weight.clamp(0, 100)).unwrap_or_default();
    let full = (weight * BAR).div_ceil(100);
    format!(
        "{weight:>3}% {}{}",
        "#".repeat(full),
        ".".repeat(BAR - full)
    )
}

/// Enough of a digest to compare two by eye.
fn digest(digest: &str) -> String {
    digest.chars().take("sha256:".len() + 12).collect()
}

fn of_evidence(rollout: &RolloutStatus, evidence: &RolloutEvidence) -> String {
    let when = if rollout.phase == RolloutPhase::Failed {
        "was"
    } else {
        "is"
    };
    let mut text = format!(
        "Evidence   {}\n           {} requests, at least {} are needed; E {when} {}, and at {} the candidate is taken back\n",
        evidence.summary,
        evidence.requests,
        evidence.needed,
        number(evidence.e_value),
        number(evidence.limit),
    );
    if let Some(examples) = &evidence.examples {
        text.push_str(&format!(
            "           Examples of answers that differ: `kubectl get configmap {examples} -o yaml`\n"
        ));
    }
    if evidence.signals.is_empty() {
        return text;
    }
    let mut table = Table::new(&["SIGNAL", "E", "CANDIDATE: BAD OF ALL", "STABLE: BAD OF ALL"]);
    for signal in &evidence.signals {
        let stable = match signal.frozen_rate {
            Some(rate) => format!("{} % before", percent(rate)),
            None => count(signal.stable),
        };
        table.row([
            signal.signal.clone(),
            number(signal.e_value),
            count(signal.candidate),
            stable,
        ]);
    }
    text.push_str(&table.render());
    text
}

#[allow(
    clippy::cast_precision_loss,
    reason = "counts of requests, shown with three digits"
)]
fn count(count: CountStatus) -> String {
    match count.requests {
        0 => "none".into(),
        all => format!(
            "{} of {all} ({} %)",
            count.bad,
            percent(count.bad as f64 / all as f64)
        ),
    }
}

fn percent(rate: f64) -> String {
    number(rate * 100.0)
}

/// Three digits are what a person compares.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1e6 => format!("{value:.2e}"),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => {
            let text = format!("{value:.2}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
    }
}

fn of_pods(pods: &[PodFacts], now: Timestamp) -> Option<String> {
    if pods.is_empty() {
        return None;
    }
    let mut table = Table::new(&[
        "POD", "REVISION", "READY", "STATE", "RESTARTS", "AGE", "NODE",
    ]);
    for pod in pods {
        table.row([
            pod.name.clone(),
            pod.revision.clone(),
            if pod.ready { "yes" } else { "no" }.into(),
            pod.state.clone(),
            pod.restarts.to_string(),
            pod.since
                .map_or_else(String::new, |since| time::age(since, now)),
            pod.node.clone(),
        ]);
    }
    Some(table.render())
}

fn failures(service: &InferenceService) -> Option<String> {
    let mut lines = String::new();
    for revision in service.status.iter().flat_map(|status| &status.revisions) {
        if let Some(failure) = &revision.last_failure {
            let code = failure
                .exit_code
                .map_or_else(String::new, |code| format!(" (exit code {code})"));
            lines.push_str(&format!(
                "Failure    {} {}{code}: {}\n",
                revision.name, failure.reason, failure.message
            ));
        }
    }
    if let Some(rollout) =
        facts::rollout(service).filter(|rollout| rollout.phase == RolloutPhase::Failed)
        && let (Some(candidate), Some(reason)) = (&rollout.candidate, &rollout.reason)
    {
        lines.push_str(&format!(
            "Failure    {candidate} was taken back: {reason}\n"
        ));
    }
    (!lines.is_empty()).then_some(lines)
}

fn conditions(service: &InferenceService, now: Timestamp) -> Option<String> {
    let conditions = &service.status.as_ref()?.conditions;
    if conditions.is_empty() {
        return None;
    }
    let mut table = Table::new(&["CONDITION", "STATUS", "REASON", "SINCE", "MESSAGE"]);
    for condition in conditions {
        table.row([
            condition.type_.clone(),
            condition.status.clone(),
            condition.reason.clone(),
            time::age(condition.last_transition_time.0, now),
            condition.message.clone(),
        ]);
    }
    Some(table.render())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_shows_the_smallest_share() {
        for (weight, text) in [
            (0, "  0% ...................."),
            (1, "  1% #..................."),
            (5, "  5% #..................."),
            (50, " 50% ##########.........."),
            (100, "100% ####################"),
            (300, "100% ####################"),
        ] {
            assert_eq!(bar(weight), text);
        }
    }

    #[test]
    fn numbers_have_about_three_digits() {
        for (value, text) in [
            (1.0, "1"),
            (0.794_706, "0.79"),
            (4.9, "4.9"),
            (38.011, "38.0"),
            (377.776, "378"),
            (3.2e9, "3.20e9"),
            (0.0, "0"),
        ] {
            assert_eq!(number(value), text);
        }
    }
}
