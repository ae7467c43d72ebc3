//! Why pods do not serve, in the words of whoever knows: the server's termination message, the
//! kubelet, the scheduler, the ReplicaSet controller.
//!
//! Messages are steady: what changes from one try to the next (back-off times, counts of restarts,
//! pod names) is left out, so that a status is written only when something new is known.

use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, Pod},
    },
    jiff::Timestamp,
};
use ortolan_crds::names;

/// How long a pod may prepare its volumes before that is worth a word, in seconds.
const SLOW_VOLUMES: i64 = 30;
/// From this many restarts on, to run out of memory or to crash is no accident.
const RESTARTS_FOR_GOOD: i32 = 3;
/// Longest sentence taken from elsewhere, in bytes: a condition is read by people.
const MAX_MESSAGE: usize = 1024;

/// Whether trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// It may pass: the store is down, a node is missing.
    Transient,
    /// Nothing will change until the spec or the model does.
    Terminal,
}

/// Why pods do not serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// One word, as in conditions, events and metrics.
    pub reason: String,
    /// One sentence.
    pub message: String,
    /// The server's exit code, when it ran.
    pub exit_code: Option<i32>,
    /// Whether trying again can help.
    pub class: Class,
}

impl Cause {
    fn new(class: Class, reason: &str, message: impl AsRef<str>) -> Self {
        let mut message = message
            .as_ref()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        if message.len() > MAX_MESSAGE {
            message.truncate(message.floor_char_boundary(MAX_MESSAGE));
            message.push('…');
        }
        Self {
            reason: reason.into(),
            message,
            exit_code: None,
            class,
        }
    }
}

/// The reasons of the server's termination message (`docs/exit-codes.md`) after which trying again
/// with the same revision gives the same result.
const FOR_GOOD: [&str; 10] = [
    "Usage",
    "DigestMismatch",
    "ArchiveRefused",
    "InvalidModel",
    "ProviderUnavailable",
    "ModelTooLarge",
    "RuntimeMissing",
    "InvalidConfig",
    "WarmUpFailed",
    "UnsupportedUri",
];

/// The most telling cause among a revision's pods and its Deployment; `None` when nothing is wrong
/// that is known of.
#[must_use]
pub fn diagnose(deployment: Option<&Deployment>, pods: &[&Pod], now: Timestamp) -> Option<Cause> {
    let waiting: Vec<&&Pod> = pods
        .iter()
        .filter(|pod| !is_ready(pod) && !is_ending(pod))
        .collect();
    // A pod that is over stays as a record; what keeps its successor from serving is the present cause.
    let worst = |is_wanted: &dyn Fn(&Pod) -> bool| {
        waiting
            .iter()
            .filter(|pod| is_wanted(pod))
            .filter_map(|pod| of_pod(pod, now))
            .max_by(|a, b| (a.class, b.reason.as_str()).cmp(&(b.class, a.reason.as_str())))
    };
    let of_pods = worst(&|pod| !is_over(pod)).or_else(|| worst(&is_over));
    let mut cause = of_pods.or_else(|| deployment.and_then(of_replicas))?;
    if cause.reason == "Unschedulable" {
        let stuck = waiting
            .iter()
            .filter(|pod| unschedulable(pod).is_some())
            .count();
        let total = pods.iter().filter(|pod| !is_ending(pod)).count();
        cause.message = format!(
            "{stuck} of {total} pods cannot be scheduled: {}",
            cause.message
        );
    }
    Some(cause)
}

/// Whether the pod takes requests.
#[must_use]
pub fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|(status, _)| status == "True") && !is_ending(pod)
}

/// Whether the pod is on its way out.
#[must_use]
pub fn is_ending(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Whether the pod's containers have ended for good.
#[must_use]
pub fn is_over(pod: &Pod) -> bool {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<(&'a str, &'a str)> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let found = conditions
        .iter()
        .find(|condition| condition.type_ == kind)?;
    Some((&found.status, found.message.as_deref().unwrap_or_default()))
}

fn of_pod(pod: &Pod, now: Timestamp) -> Option<Cause> {
    if let Some(words) = unschedulable(pod) {
        return Some(Cause::new(
            Class::Transient,
            "Unschedulable",
            wanting(pod, words),
        ));
    }
    let status = pod.status.as_ref()?;
    if is_over(pod) {
        let reason = status.reason.as_deref().unwrap_or("PodFailed");
        let message = status.message.as_deref().unwrap_or("the pod ended");
        if reason == "Evicted" {
            return Some(Cause::new(Class::Transient, "Evicted", evicted(message)));
        }
        return Some(Cause::new(Class::Transient, reason, message));
    }
    let container = status
        .container_statuses
        .iter()
        .flatten()
        .find(|container| container.name == names::CONTAINER)?;
    of_container(pod, container).or_else(|| slow_volumes(pod, container, now))
}

/// The kubelet's own words, without the amounts that differ from pod to pod (`…: memory. Threshold
/// quantity: 100Mi, available: 80Mi. Container server was using …`), and what to do.
fn evicted(words: &str) -> String {
    let words = words.split(" Threshold quantity").next().unwrap_or(words);
    let words = words
        .split(" Container server was using")
        .next()
        .unwrap_or(words)
        .trim()
        .trim_end_matches('.');
    let field = "server.resources";
    let advice = if words.contains("low on resource: memory") {
        format!("set {field}.requests.memory to what the model needs")
    } else if words.contains("low on resource") {
        format!(
            "free space on the node's disk, or set {field}.requests.ephemeral-storage to what the model needs, so that the pod goes where that is free"
        )
    } else if ["local", "EmptyDir"]
        .iter()
        .any(|word| words.contains(word))
    {
        format!(
            "the model, what it unpacks to and the log count: raise {field}.limits.ephemeral-storage"
        )
    } else {
        return format!("the kubelet evicted a pod: {words}");
    };
    format!("the kubelet evicted a pod: {words}; {advice}")
}

/// The scheduler's own words, without what it says of claims and of preemption: `…: 1 Insufficient
/// cpu. no new claims to deallocate, preemption: …`.
fn unschedulable(pod: &Pod) -> Option<&str> {
    let (status, words) = condition(pod, "PodScheduled")?;
    let words = words.split(" preemption:").next().unwrap_or(words).trim();
    let words = words
        .strip_suffix(" no new claims to deallocate,")
        .unwrap_or(words);
    (status == "False").then_some(words)
}

/// Names the device that the pod asks for beside the scheduler's words, which do not tell how many.
fn wanting(pod: &Pod, words: &str) -> String {
    let limits = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.containers.iter().find(|c| c.name == names::CONTAINER))
        .and_then(|container| container.resources.as_ref()?.limits.as_ref());
    let device = limits
        .into_iter()
        .flatten()
        .find(|(name, _)| words.contains(name.as_str()));
    match device {
        Some((name, count)) if name.contains('/') => {
            format!("each needs {} {name}; {words}", count.0)
        }
        _ => words.to_owned(),
    }
}

fn of_container(pod: &Pod, container: &ContainerStatus) -> Option<Cause> {
    let waiting = container
        .state
        .as_ref()
        .and_then(|state| state.waiting.as_ref());
    let why = waiting
        .and_then(|w| w.reason.as_deref())
        .unwrap_or_default();
    let words = waiting
        .and_then(|w| w.message.as_deref())
        .unwrap_or_default();
    match why {
        "ErrImagePull" | "ImagePullBackOff" | "ErrImageNeverPull" | "RegistryUnavailable" => {
            Some(Cause::new(
                Class::Transient,
                "ImagePullFailed",
                pull_message(container, words),
            ))
        }
        "InvalidImageName" => Some(Cause::new(
            Class::Terminal,
            "InvalidImageName",
            format!("the image name {:?} is malformed: {words}", container.image),
        )),
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
            Some(Cause::new(Class::Transient, why, words))
        }
        _ => {
            let ended = |state: &Option<ContainerState>| state.as_ref()?.terminated.clone();
            let last = ended(&container.state).or_else(|| ended(&container.last_state))?;
            Some(of_exit(pod, container, &last))
        }
    }
}

/// One sentence for both phases of a failing pull, whose messages take turns.
fn pull_message(container: &ContainerStatus, words: &str) -> String {
    let detail = words.rsplit("ErrImagePull: ").next().unwrap_or(words);
    let detail = if detail.starts_with("Back-off pulling image") {
        ""
    } else {
        detail
    };
    let image = &container.image;
    if detail.is_empty() {
        format!("the image {image} cannot be pulled")
    } else {
        format!("the image {image} cannot be pulled: {detail}")
    }
}

fn of_exit(pod: &Pod, container: &ContainerStatus, last: &ContainerStateTerminated) -> Cause {
    let class = if container.restart_count >= RESTARTS_FOR_GOOD {
        Class::Terminal
    } else {
        Class::Transient
    };
    let mut cause = if last.reason.as_deref() == Some("OOMKilled") {
        Cause::new(class, "OOMKilled", out_of_memory(pod))
    } else {
        of_message(last).unwrap_or_else(|| of_code(last, class))
    };
    cause.exit_code = Some(last.exit_code);
    cause
}

fn out_of_memory(pod: &Pod) -> String {
    let limit = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.containers.iter().find(|c| c.name == names::CONTAINER))
        .and_then(|container| {
            container
                .resources
                .as_ref()?
                .limits
                .as_ref()?
                .get("memory")
                .cloned()
        });
    match limit {
        Some(limit) => format!(
            "the server was killed at its memory limit of {}: raise server.resources.limits.memory, or serve a smaller model",
            limit.0
        ),
        None => "the node ran out of memory and killed the server: set server.resources.requests.memory to what the model needs".into(),
    }
}

/// `Reason: sentence` in the termination message.
fn of_message(last: &ContainerStateTerminated) -> Option<Cause> {
    let (reason, sentence) = last_line(last).split_once(": ")?;
    let is_reason = reason.starts_with(|c: char| c.is_ascii_uppercase())
        && reason.chars().all(|c| c.is_ascii_alphanumeric());
    let class = if FOR_GOOD.contains(&reason) {
        Class::Terminal
    } else {
        Class::Transient
    };
    is_reason.then(|| Cause::new(class, reason, sentence))
}

/// The exit code alone: the server did not end by its own will.
fn of_code(last: &ContainerStateTerminated, class: Class) -> Cause {
    let (code, line) = (last.exit_code, last_line(last));
    let tail = if line.is_empty() {
        String::from("and left no message; see its log")
    } else {
        format!("with the last line: {line}")
    };
    // The command line's own code: the same arguments will be refused again.
    let class = if code == 2 { Class::Terminal } else { class };
    Cause::new(
        class,
        "CrashLoop",
        format!("the server exits with code {code} {tail}"),
    )
}

fn last_line(last: &ContainerStateTerminated) -> &str {
    let message = last.message.as_deref().unwrap_or_default().trim();
    message.lines().last().unwrap_or_default()
}

/// The kubelet tells of volumes only in events, so name what the pod mounts.
fn slow_volumes(pod: &Pod, container: &ContainerStatus, now: Timestamp) -> Option<Cause> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    if waiting.reason.as_deref() != Some("ContainerCreating") {
        return None;
    }
    let since = pod.status.as_ref()?.start_time.as_ref()?.0;
    if now.as_second() - since.as_second() < SLOW_VOLUMES {
        return None;
    }
    let volumes = pod.spec.as_ref()?.volumes.iter().flatten();
    let mounted: Vec<String> = volumes
        .filter_map(|volume| {
            let secret = volume.secret.as_ref().and_then(|s| s.secret_name.as_ref());
            let claim = volume
                .persistent_volume_claim
                .as_ref()
                .map(|c| &c.claim_name);
            secret
                .map(|name| format!("Secret {name}"))
                .or_else(|| claim.map(|name| format!("PersistentVolumeClaim {name}")))
        })
        .collect();
    if mounted.is_empty() {
        return None;
    }
    let what = mounted.join(" and ");
    Some(Cause::new(
        Class::Transient,
        "VolumesNotReady",
        format!(
            "a pod waits for its volumes: check that {what} exists in this namespace, and its events"
        ),
    ))
}

/// The ReplicaSet controller could not create pods: a quota, PodSecurity, a missing ServiceAccount.
fn of_replicas(deployment: &Deployment) -> Option<Cause> {
    let conditions = deployment.status.as_ref()?.conditions.as_ref()?;
    let failure = conditions
        .iter()
        .find(|c| c.type_ == "ReplicaFailure" && c.status == "True")?;
    let message = failure.message.as_deref().unwrap_or_default();
    Some(Cause::new(
        Class::Transient,
        "PodsRefused",
        format!("the pods cannot be created: {}", without_pod_name(message)),
    ))
}

/// `pods "x-5d4f-abcde" is forbidden: …` names another pod at every try.
fn without_pod_name(message: &str) -> String {
    match (
        message.strip_prefix("pods \""),
        message.find("\" is forbidden"),
    ) {
        (Some(_), Some(at)) => format!("pods{}", &message[at + 1..]),
        _ => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(status: Value) -> Pod {
        let mut pod = json!({
            "metadata": {"name": "p"},
            "spec": {"containers": [{"name": "server", "resources": {"limits": {"memory": "1Gi", "nvidia.com/gpu": "1"}}}],
                     "volumes": [{"name": "credentials", "secret": {"secretName": "store"}}]},
        });
        pod["status"] = status;
        serde_json::from_value(pod).expect("a pod")
    }

    fn container(state: Value, last: Value, restarts: i32) -> Pod {
        pod(
            json!({"startTime": "2026-01-01T00:00:00Z", "containerStatuses": [{
            "name": "server", "image": "i:1", "imageID": "", "ready": false,
            "restartCount": restarts, "state": state, "lastState": last}]}),
        )
    }

    fn now() -> Timestamp {
        "2026-01-01T00:01:00Z".parse().expect("a time")
    }

    fn told(pods: &[Pod]) -> Option<(String, String, Class)> {
        let pods: Vec<&Pod> = pods.iter().collect();
        diagnose(None, &pods, now()).map(|c| (c.reason, c.message, c.class))
    }

    #[test]
    fn the_servers_own_words_become_the_cause() {
        let ended = json!({"terminated": {"exitCode": 13, "reason": "Error",
            "message": "DigestMismatch: the file has sha256:aa, expected sha256:bb\n"}});
        for (state, last) in [
            (ended.clone(), json!({})),
            (
                json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 20s"}}),
                ended.clone(),
            ),
            (json!({"running": {}}), ended),
        ] {
            assert_eq!(
                told(&[container(state, last, 2)]),
                Some((
                    "DigestMismatch".into(),
                    "the file has sha256:aa, expected sha256:bb".into(),
                    Class::Terminal
                ))
            );
        }
    }

    #[test]
    fn a_store_that_is_down_may_come_back() {
        let ended = json!({"terminated": {"exitCode": 10, "message": "StoreUnavailable: no address for models.test"}});
        assert_eq!(
            told(&[container(ended, json!({}), 0)]),
            Some((
                "StoreUnavailable".into(),
                "no address for models.test".into(),
                Class::Transient
            ))
        );
    }

    #[test]
    fn an_exit_without_a_message_names_its_code_and_is_for_good_after_three_restarts() {
        let ended = json!({"terminated": {"exitCode": 139}});
        for (restarts, class) in [(0, Class::Transient), (3, Class::Terminal)] {
            let (reason, message, got) =
                told(&[container(ended.clone(), json!({}), restarts)]).expect("a cause");
            assert_eq!((reason.as_str(), got), ("CrashLoop", class));
            assert!(message.contains("139"), "{message}");
        }
        let usage = json!({"terminated": {"exitCode": 2, "message": "error: unexpected argument"}});
        let (_, message, class) = told(&[container(usage, json!({}), 0)]).expect("a cause");
        assert_eq!(class, Class::Terminal);
        assert!(message.ends_with("error: unexpected argument"), "{message}");
    }

    #[test]
    fn running_out_of_memory_names_the_limit_and_is_for_good_after_three_restarts() {
        let killed = json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}});
        for (restarts, class) in [(0, Class::Transient), (3, Class::Terminal)] {
            let (reason, message, got) =
                told(&[container(killed.clone(), json!({}), restarts)]).expect("a cause");
            assert_eq!((reason.as_str(), got), ("OOMKilled", class));
            assert!(message.contains("1Gi"), "{message}");
        }
    }

    #[test]
    fn both_phases_of_a_failing_pull_read_the_same() {
        let detail = "rpc error: not found";
        let first = json!({"waiting": {"reason": "ErrImagePull", "message": detail}});
        let second = json!({"waiting": {"reason": "ImagePullBackOff",
            "message": format!("Back-off pulling image \"i:1\": ErrImagePull: {detail}")}});
        let first = told(&[container(first, json!({}), 0)]);
        assert_eq!(first, told(&[container(second, json!({}), 0)]));
        assert_eq!(
            first.expect("a cause").1,
            "the image i:1 cannot be pulled: rpc error: not found"
        );
    }

    #[test]
    fn a_pod_that_waits_for_a_device_tells_how_many_and_what() {
        let waiting = || {
            pod(
                json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": "0/1 nodes are available: 1 Insufficient nvidia.com/gpu. no new claims to deallocate, preemption: 0/1 nodes are available."}]}),
            )
        };
        let ready = pod(json!({"conditions": [{"type": "Ready", "status": "True"}]}));
        assert_eq!(
            told(&[ready, waiting()]),
            Some((
                "Unschedulable".into(),
                "1 of 2 pods cannot be scheduled: each needs 1 nvidia.com/gpu; 0/1 nodes are available: 1 Insufficient nvidia.com/gpu.".into(),
                Class::Transient
            ))
        );
    }

    #[test]
    fn a_pod_that_waits_for_its_volumes_names_them_after_half_a_minute() {
        let creating = json!({"waiting": {"reason": "ContainerCreating"}});
        let (reason, message, _) =
            told(&[container(creating.clone(), json!({}), 0)]).expect("a cause");
        assert_eq!(reason, "VolumesNotReady");
        assert!(message.contains("Secret store"), "{message}");
        let early = container(creating, json!({}), 0);
        let soon = "2026-01-01T00:00:10Z".parse().expect("a time");
        assert_eq!(diagnose(None, &[&early], soon), None);
    }

    #[test]
    fn refused_pods_are_told_without_their_changing_names() {
        let deployment: Deployment = serde_json::from_value(
            json!({"spec": {"selector": {}, "template": {}}, "status": {"conditions": [
            {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate",
             "message": "pods \"m-1-abcde\" is forbidden: exceeded quota: pods=2"}]}}),
        )
        .expect("a deployment");
        let cause = diagnose(Some(&deployment), &[], now()).expect("a cause");
        assert_eq!(cause.reason, "PodsRefused");
        assert_eq!(
            cause.message,
            "the pods cannot be created: pods is forbidden: exceeded quota: pods=2"
        );
    }

    fn over(message: &str) -> Pod {
        pod(json!({"phase": "Failed", "reason": "Evicted", "message": message}))
    }

    #[test]
    fn an_evicted_pod_is_told_with_the_kubelets_words_the_limit_and_what_to_do() {
        for (words, shown, advice) in [
            (
                "Pod ephemeral local storage usage exceeds the total limit of containers 10Mi. ",
                "exceeds the total limit of containers 10Mi;",
                "raise server.resources.limits.ephemeral-storage",
            ),
            (
                "Container server exceeded its local ephemeral storage limit \"10Mi\". ",
                "Container server exceeded its local ephemeral storage limit \"10Mi\";",
                "raise server.resources.limits.ephemeral-storage",
            ),
            (
                "Usage of EmptyDir volume \"cache\" exceeds the limit \"1Gi\". ",
                "\"cache\" exceeds the limit \"1Gi\";",
                "raise server.resources.limits.ephemeral-storage",
            ),
            (
                "The node was low on resource: ephemeral-storage. Threshold quantity: 2, available: 1. Container server was using 22Mi, request is 0, has larger consumption of ephemeral-storage. ",
                "The node was low on resource: ephemeral-storage;",
                "set server.resources.requests.ephemeral-storage",
            ),
            (
                "The node was low on resource: memory. Container server was using 22Mi, request is 0.",
                "The node was low on resource: memory;",
                "set server.resources.requests.memory",
            ),
            (
                "The node had condition: [PIDPressure]. ",
                "The node had condition: [PIDPressure]",
                "evicted",
            ),
        ] {
            let (reason, message, class) = told(&[over(words)]).expect("a cause");
            assert_eq!((reason.as_str(), class), ("Evicted", Class::Transient));
            assert!(
                message.starts_with("the kubelet evicted a pod: ")
                    && message.contains(shown)
                    && message.contains(advice)
                    && !message.contains("22Mi"),
                "{message}"
            );
        }
    }

    #[test]
    fn what_keeps_the_successor_of_an_evicted_pod_from_serving_is_told_first() {
        let creating = container(
            json!({"waiting": {"reason": "PodInitializing"}}),
            json!({}),
            0,
        );
        let is_told = |pods: &[Pod]| told(pods).map(|(reason, ..)| reason);
        assert_eq!(is_told(&[over("x"), creating]), Some("Evicted".into()));
        let waiting = pod(
            json!({"conditions": [{"type": "PodScheduled", "status": "False", "message": "no node"}]}),
        );
        assert_eq!(is_told(&[over("x"), waiting]), Some("Unschedulable".into()));
    }

    #[test]
    fn what_will_not_pass_is_told_before_what_may() {
        let bad = json!({"terminated": {"exitCode": 15, "message": "InvalidModel: truncated"}});
        let waiting = pod(
            json!({"conditions": [{"type": "PodScheduled", "status": "False", "message": "no node"}]}),
        );
        let told = told(&[waiting, container(bad, json!({}), 0)]).expect("a cause");
        assert_eq!(told.0, "InvalidModel");
    }

    #[test]
    fn ready_pods_and_pods_on_their_way_out_have_no_cause() {
        let ready = pod(json!({"conditions": [{"type": "Ready", "status": "True"}]}));
        let mut ending = container(json!({"terminated": {"exitCode": 1}}), json!({}), 0);
        ending.metadata.deletion_timestamp =
            serde_json::from_value(json!("2026-01-01T00:00:00Z")).expect("a time");
        assert_eq!(told(&[ready, ending]), None);
    }
}
