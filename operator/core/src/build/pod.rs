//! The pod of a revision: built once, when the revision is made, and frozen in it.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource,
        EnvVar, EnvVarSource, HTTPGetAction, PersistentVolumeClaimVolumeSource, PodSecurityContext,
        PodSpec, PodTemplateSpec, Probe, ResourceFieldSelector, ResourceRequirements,
        SeccompProfile, SecretVolumeSource, SecurityContext, Toleration, TopologySpreadConstraint,
        Volume, VolumeMount,
    },
    apimachinery::pkg::{
        api::resource::Quantity, apis::meta::v1::ObjectMeta, util::intstr::IntOrString,
    },
};
use ortolan_crds::{Batching, Fallback, Pod, Server, Warmup, names};

use super::{label_selector, revision_labels};
use crate::{
    revision::RevisionName,
    validate::{DEFAULT_MEMORY_LIMIT, DRAIN_DELAY, Device, Validated},
};

/// The user and group of the server's image.
const USER: i64 = 65532;

/// The whole pod.
#[must_use]
pub fn pod_template(validated: &Validated, revision: &RevisionName) -> PodTemplateSpec {
    let pod = validated.template.pod.clone().unwrap_or_default();
    let mut labels = pod.labels.clone();
    labels.extend(revision_labels(&validated.service, revision));
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels),
            annotations: (!pod.annotations.is_empty()).then(|| pod.annotations.clone()),
            ..ObjectMeta::default()
        }),
        spec: Some(pod_spec(validated, revision, pod)),
    }
}

fn pod_spec(validated: &Validated, revision: &RevisionName, pod: Pod) -> PodSpec {
    let grace = i64::try_from(validated.termination_grace.as_secs()).unwrap_or(i64::MAX);
    PodSpec {
        containers: vec![container(validated)],
        volumes: Some(volumes(validated, revision)),
        termination_grace_period_seconds: Some(grace),
        automount_service_account_token: Some(pod.automount_service_account_token.unwrap_or(false)),
        service_account_name: pod.service_account_name,
        enable_service_links: Some(false),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".into(),
                localhost_profile: None,
            }),
            ..PodSecurityContext::default()
        }),
        node_selector: some_map(pod.node_selector),
        tolerations: some_list(tolerations(validated.device.as_ref(), pod.tolerations)),
        affinity: pod.affinity,
        topology_spread_constraints: some_list(spread(
            &validated.service,
            revision,
            pod.topology_spread_constraints,
        )),
        priority_class_name: pod.priority_class_name,
        runtime_class_name: pod.runtime_class_name,
        image_pull_secrets: some_list(pod.image_pull_secrets),
        ..PodSpec::default()
    }
}

fn some_list<T>(items: Vec<T>) -> Option<Vec<T>> {
    (!items.is_empty()).then_some(items)
}

fn some_map(map: BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    (!map.is_empty()).then_some(map)
}

/// Clusters keep pods off their GPU nodes by a taint of the resource's name; a pod that asks for the
/// resource may go there.
fn tolerations(device: Option<&Device>, mut own: Vec<Toleration>) -> Vec<Toleration> {
    const NVIDIA: &str = "nvidia.com/gpu";
    let wants = device.is_some_and(|device| device.resource.starts_with("nvidia.com/"));
    if wants && !own.iter().any(|t| t.key.as_deref() == Some(NVIDIA)) {
        own.push(Toleration {
            key: Some(NVIDIA.into()),
            operator: Some("Exists".into()),
            ..Toleration::default()
        });
    }
    own
}

/// A constraint without a selector counts no pods at all, which nobody means.
fn spread(
    service: &str,
    revision: &RevisionName,
    mut constraints: Vec<TopologySpreadConstraint>,
) -> Vec<TopologySpreadConstraint> {
    for constraint in &mut constraints {
        if constraint.label_selector.is_none() {
            constraint.label_selector = Some(label_selector(service, revision));
        }
    }
    constraints
}

fn container(validated: &Validated) -> Container {
    let server = validated.template.server.clone().unwrap_or_default();
    Container {
        name: names::CONTAINER.into(),
        image: Some(validated.image.clone()),
        image_pull_policy: validated.image_pull_policy.clone(),
        args: Some(arguments(validated, &server)),
        env: some_list(environment(&server)),
        ports: Some(vec![ContainerPort {
            name: Some("http".into()),
            container_port: names::CONTAINER_PORT,
            protocol: Some("TCP".into()),
            ..ContainerPort::default()
        }]),
        resources: Some(resources(&server, validated.device.as_ref())),
        // Liveness never depends on load; readiness is quick, since a Service waits for it.
        liveness_probe: Some(probe("/healthz/live", 10, 5)),
        readiness_probe: Some(probe("/healthz/ready", 2, 2)),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            run_as_non_root: Some(true),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".into()]),
                add: None,
            }),
            ..SecurityContext::default()
        }),
        termination_message_policy: Some("FallbackToLogsOnError".into()),
        volume_mounts: Some(mounts(validated)),
        ..Container::default()
    }
}

/// The user's own, and before them what the server may write: a kubelet ends a pod that is over its limit
/// of ephemeral storage only when it looks, a minute later, so that the server itself has to know.
fn environment(server: &Server) -> Vec<EnvVar> {
    const STORAGE: &str = "ephemeral-storage";
    const NAME: &str = "ORTOLAN_MAX_CACHE_BYTES";
    let limits = server.resources.as_ref().map(|r| &r.limits);
    let is_limited = limits.is_some_and(|limits| limits.contains_key(STORAGE));
    let is_told = server.env.iter().any(|variable| variable.name == NAME);
    let limit = (is_limited && !is_told).then(|| EnvVar {
        name: NAME.into(),
        value_from: Some(EnvVarSource {
            resource_field_ref: Some(ResourceFieldSelector {
                resource: format!("limits.{STORAGE}"),
                ..ResourceFieldSelector::default()
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    });
    limit
        .into_iter()
        .chain(server.env.iter().cloned())
        .collect()
}

fn probe(path: &str, period: i32, timeout: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.into()),
            port: IntOrString::String("http".into()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        timeout_seconds: Some(timeout),
        failure_threshold: Some(3),
        ..Probe::default()
    }
}

fn batching(batching: &Batching) -> Vec<String> {
    let number = |option: &str, value: Option<i32>| value.map(|n| format!("{option}={n}"));
    let preferred: Vec<String> = batching
        .preferred_batch_sizes
        .iter()
        .map(i32::to_string)
        .collect();
    let preferred =
        (!preferred.is_empty()).then(|| format!("--preferred-batch={}", preferred.join(",")));
    let delay = batching.max_delay.as_ref();
    [
        number("--max-batch", batching.max_batch_size),
        preferred,
        delay.map(|delay| format!("--max-delay={delay}")),
        number("--queue", batching.max_queue),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn arguments(validated: &Validated, server: &Server) -> Vec<String> {
    let model = &validated.template.model;
    let fallback = match server
        .accelerator
        .as_ref()
        .and_then(|a| a.fallback)
        .unwrap_or_default()
    {
        Fallback::Fail => "fail",
        Fallback::Allow => "allow",
    };
    let mut args = vec![
        model.uri.clone(),
        format!("--name={}", validated.model_name),
        format!(
            "--recorded-digest-file={}/{}",
            names::REVISION_DIR,
            names::DIGEST_KEY
        ),
        format!("--http=0.0.0.0:{}", names::CONTAINER_PORT),
        format!("--sessions={}", validated.sessions),
        format!("--threads={}", server.threads.unwrap_or(1)),
        format!("--provider={}", validated.provider.as_str()),
        format!("--fallback={fallback}"),
        format!("--cache-dir={}", names::CACHE_DIR),
        format!("--pvc-root={}", names::PVC_ROOT),
        format!("--drain-delay={}s", DRAIN_DELAY.as_secs()),
        format!("--grace={}s", validated.finish_within().as_secs()),
        "--log-format=json".into(),
    ];
    args.extend(model.version.iter().map(|v| format!("--model-version={v}")));
    args.extend(model.digest.iter().map(|d| format!("--digest={d}")));
    if model.credentials_secret_ref.is_some() {
        args.push(format!("--credentials-dir={}", names::CREDENTIALS_DIR));
    }
    args.extend(server.batching.iter().flat_map(batching));
    let limit = server.max_concurrency.iter();
    args.extend(limit.map(|n| format!("--max-concurrency={n}")));
    if server.warmup == Some(Warmup::Off) {
        args.push("--warm-up=off".into());
    }
    let pipeline = validated.model_config.iter();
    args.extend(pipeline.map(|text| format!("--model-config-inline={}", literal(text))));
    if server.management_api == Some(true) {
        // Only an explicit repository can be loaded from; at the start it has every model, as without this field.
        let explicit = [
            "--management-api",
            "--model-control=explicit",
            "--load-model=*",
        ];
        args.extend(explicit.map(String::from));
    }
    args.extend(server.extra_args.iter().cloned());
    args
}

/// The kubelet reads `$(NAME)` in an argument as a variable, and `$$` as a dollar.
fn literal(text: &str) -> String {
    text.replace('$', "$$")
}

/// What the user wrote, else 1 CPU and 512Mi asked for and 1Gi at most; the device on both sides, as
/// Kubernetes wants extended resources.
fn resources(server: &Server, device: Option<&Device>) -> ResourceRequirements {
    let quantity = |text: &str| Quantity(text.to_owned());
    let (mut requests, mut limits) = match &server.resources {
        Some(resources) => (resources.requests.clone(), resources.limits.clone()),
        None => (
            BTreeMap::from([
                ("cpu".into(), quantity("1")),
                ("memory".into(), quantity("512Mi")),
            ]),
            BTreeMap::from([("memory".into(), quantity(DEFAULT_MEMORY_LIMIT))]),
        ),
    };
    if let Some(device) = device {
        for side in [&mut requests, &mut limits] {
            side.insert(device.resource.clone(), quantity(&device.count.to_string()));
        }
    }
    ResourceRequirements {
        requests: (!requests.is_empty()).then_some(requests),
        limits: (!limits.is_empty()).then_some(limits),
        claims: None,
    }
}

/// The claim of a `pvc://claim/path` URI.
fn claim(uri: &str) -> Option<&str> {
    uri.strip_prefix("pvc://")?
        .split('/')
        .next()
        .filter(|claim| !claim.is_empty())
}

fn volumes(validated: &Validated, revision: &RevisionName) -> Vec<Volume> {
    let model = &validated.template.model;
    let volume = |name: &str| Volume {
        name: name.into(),
        ..Volume::default()
    };
    let mut volumes = vec![
        Volume {
            empty_dir: Some(EmptyDirVolumeSource::default()),
            ..volume("cache")
        },
        Volume {
            config_map: Some(ConfigMapVolumeSource {
                name: revision.as_str().into(),
                optional: Some(true),
                ..ConfigMapVolumeSource::default()
            }),
            ..volume("revision")
        },
    ];
    if let Some(secret) = &model.credentials_secret_ref {
        volumes.push(Volume {
            secret: Some(SecretVolumeSource {
                secret_name: Some(secret.name.clone()),
                ..SecretVolumeSource::default()
            }),
            ..volume("credentials")
        });
    }
    if let Some(claim) = claim(&model.uri) {
        volumes.push(Volume {
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim.into(),
                read_only: Some(true),
            }),
            ..volume("model")
        });
    }
    volumes
}

fn mounts(validated: &Validated) -> Vec<VolumeMount> {
    let model = &validated.template.model;
    let mount = |name: &str, path: String, read_only: bool| VolumeMount {
        name: name.into(),
        mount_path: path,
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    };
    let mut mounts = vec![
        mount("cache", names::CACHE_DIR.into(), false),
        mount("revision", names::REVISION_DIR.into(), true),
    ];
    if model.credentials_secret_ref.is_some() {
        mounts.push(mount("credentials", names::CREDENTIALS_DIR.into(), true));
    }
    if let Some(claim) = claim(&model.uri) {
        mounts.push(mount("model", format!("{}/{claim}", names::PVC_ROOT), true));
    }
    mounts
}
