use std::collections::BTreeMap;

use ortolan_crds::{InferenceService, InferenceServiceSpec, Provider};
use serde_json::{Value, json};

use super::*;
use crate::{
    revision::Resolved,
    validate::{Defaults, validate},
};

fn built(spec: Value) -> Value {
    let spec: InferenceServiceSpec = serde_json::from_value(spec).expect("a spec");
    let mut service = InferenceService::new("m", spec);
    service.metadata.namespace = Some("ns".into());
    service.metadata.uid = Some("u1".into());
    let defaults = Defaults {
        images: BTreeMap::from([
            (Provider::CPU, "cpu:1".into()),
            (Provider::CUDA, "cuda:1".into()),
        ]),
        image_pull_policy: Some("IfNotPresent".into()),
        router: None,
    };
    let validated = validate(&service, &defaults).expect("valid");
    let revision = RevisionName::new("m-12345678");
    let resolved = Resolved {
        image: validated.image.clone(),
        pod: pod_template(&validated, &revision),
    };
    serde_json::to_value(deployment(
        &Owner::of(&service),
        &revision,
        &resolved,
        Some(2),
    ))
    .expect("JSON")
}

#[test]
fn the_smallest_service_is_built_like_this() {
    insta::assert_json_snapshot!(built(json!({"model": {"uri": "https://a/m.onnx"}})));
}

#[test]
fn a_service_with_everything_is_built_like_this() {
    insta::assert_json_snapshot!(built(json!({
        "model": {"uri": "pvc://models/a/m.onnx", "version": "3", "name": "other",
                  "digest": format!("sha256:{}", "a".repeat(64))},
        "server": {
            "image": "mine:2",
            "resources": {"requests": {"cpu": 1}, "limits": {"memory": "2Gi"}},
            "accelerator": {"resource": "nvidia.com/gpu", "count": 2, "fallback": "Allow"},
            "threads": 4, "env": [{"name": "A", "value": "b"}], "extraArgs": ["--max-body-bytes=1"],
            "batching": {"maxBatchSize": 32, "preferredBatchSizes": [4, 8], "maxDelay": "2ms", "maxQueue": 512},
            "managementApi": true, "maxConcurrency": 64, "warmup": "Off",
        },
        "pod": {
            "nodeSelector": {"gpu": "yes"}, "tolerations": [{"key": "own", "operator": "Exists"}],
            "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}],
            "priorityClassName": "high", "runtimeClassName": "nvidia", "imagePullSecrets": [{"name": "s"}],
            "labels": {"team": "a"}, "annotations": {"serving.ortolan.dev/restartedAt": "now"},
            "serviceAccountName": "sa", "automountServiceAccountToken": true, "terminationGracePeriod": "1m",
        },
    })));
}

#[test]
fn a_pipeline_goes_to_the_server_as_one_argument_without_variables_of_the_kubelets() {
    let deployment = built(
        json!({"model": {"uri": "https://a/m.tar"}, "server": {"pipeline": {
        "input": {"kind": "rows", "columns": [{"name": "$(HOME) in $"}, {"name": "ä", "missing": "NaN"}], "missing": 0},
        "output": {"kind": "classification", "labels": "labels.txt", "threshold": 0.5}}}}),
    );
    let args = &deployment["spec"]["template"]["spec"]["containers"][0]["args"];
    let args = args.as_array().expect("arguments").iter();
    let text = args
        .filter_map(|arg| arg.as_str()?.strip_prefix("--model-config-inline="))
        .next()
        .expect("the argument");
    assert!(!text.replace("$$", "").contains('$'), "{text}");
    let read: Value = serde_json::from_str(&text.replace("$$", "$")).expect("JSON");
    assert_eq!(
        read,
        json!({"pipeline": {
            "input": {"kind": "rows", "columns": [{"name": "$(HOME) in $"}, {"name": "ä", "missing": "NaN"}], "missing": 0},
            "output": {"kind": "classification", "labels": "labels.txt", "threshold": 0.5}}})
    );
}

#[test]
fn credentials_are_mounted_and_named_but_never_read() {
    let deployment = built(
        json!({"model": {"uri": "https://a/m.onnx", "credentialsSecretRef": {"name": "store"}}}),
    );
    let pod = &deployment["spec"]["template"]["spec"];
    assert!(
        pod["volumes"]
            .as_array()
            .expect("volumes")
            .iter()
            .any(|v| v["secret"]["secretName"] == "store")
    );
    let args = pod["containers"][0]["args"].as_array().expect("arguments");
    assert!(args.contains(&json!("--credentials-dir=/etc/ortolan/credentials")));
}

#[test]
fn a_limit_of_ephemeral_storage_is_told_to_the_server_unless_the_user_does() {
    let env = |server: Value| {
        let model = json!({"uri": "https://a/m.onnx"});
        let deployment = built(json!({"model": model, "server": server}));
        deployment["spec"]["template"]["spec"]["containers"][0]["env"].clone()
    };
    let limits = json!({"limits": {"ephemeral-storage": "1Gi"}});
    let own = json!({"name": "A", "value": "b"});
    let told = json!({"name": "ORTOLAN_MAX_CACHE_BYTES",
        "valueFrom": {"resourceFieldRef": {"resource": "limits.ephemeral-storage"}}});
    assert_eq!(
        env(json!({"resources": limits, "env": [own]})),
        json!([told, own])
    );
    let mine = json!([{"name": "ORTOLAN_MAX_CACHE_BYTES", "value": "1"}]);
    assert_eq!(env(json!({"resources": limits, "env": mine})), mine);
    let asked = json!({"requests": {"ephemeral-storage": "1Gi"}});
    assert_eq!(env(json!({"resources": asked})), json!(null));
}

#[test]
fn a_users_own_toleration_of_the_gpus_taint_is_left_alone() {
    let deployment = built(json!({"model": {"uri": "https://a/m.onnx"},
        "server": {"accelerator": {"resource": "nvidia.com/gpu"}},
        "pod": {"tolerations": [{"key": "nvidia.com/gpu", "value": "x"}]}}));
    let tolerations = &deployment["spec"]["template"]["spec"]["tolerations"];
    assert_eq!(
        tolerations,
        &json!([{"key": "nvidia.com/gpu", "value": "x"}])
    );
}

#[test]
fn a_pod_gets_no_token_unless_asked() {
    let deployment = built(json!({"model": {"uri": "https://a/m.onnx"}}));
    assert_eq!(
        deployment["spec"]["template"]["spec"]["automountServiceAccountToken"],
        json!(false)
    );
}

#[test]
fn the_service_selects_one_revision() {
    let owner = Owner {
        name: "m".into(),
        namespace: "ns".into(),
        uid: "u1".into(),
    };
    let service = service(&owner, Front::Pods(&RevisionName::new("m-1")));
    let spec = service.spec.expect("a spec");
    assert_eq!(
        spec.selector.expect("a selector"),
        BTreeMap::from([
            ("serving.ortolan.dev/revision".into(), "m-1".into()),
            ("serving.ortolan.dev/service".into(), "m".into())
        ])
    );
}
