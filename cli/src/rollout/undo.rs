//! `ortolan rollout undo`: the spec's model, server and pod become again what an earlier revision holds.
//!
//! What is written is the user's own text, from the ControllerRevision's `data.template`, as it stands there; the rest of
//! the spec stays. The operator finds the revision by it, and one that it still keeps takes over without a pod that
//! has to start. Nothing is written but onto the object that was decided by.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ControllerRevision;
use kube::{Resource as _, ResourceExt as _};
use ortolan_core::revision::{Revision, Template};
use ortolan_crds::InferenceService;
use serde_json::{Value, json};

use super::command::{MANAGER, TRIES};
use crate::{
    cluster::{Cluster, Found},
    error::Error,
    exit::Exit,
    facts,
    near::meant,
    options::Undo,
};

/// What of the spec makes a revision.
const PARTS: [&str; 3] = ["model", "server", "pod"];

/// A revision that can be gone back to.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    /// Its name.
    pub name: String,
    /// Its number.
    pub number: i64,
    /// When it became the one that serves.
    pub stable_since: Option<Timestamp>,
    /// What the user wrote, with fields that this program does not know.
    pub template: Value,
    /// The same, as it is compared.
    pub canonical: Value,
}

impl Kept {
    /// Reads a ControllerRevision; `None` when it is not the operator's.
    pub fn read(object: &ControllerRevision) -> Option<Self> {
        let revision = Revision::read(object).ok()?;
        Some(Self {
            name: object.name_any(),
            number: revision.number,
            stable_since: revision.stable_since,
            template: object.data.as_ref()?.0.get("template")?.clone(),
            canonical: revision.data.template.canonical(),
        })
    }
}

/// Why there is nothing to go back to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No earlier one served.
    #[error(
        "no earlier revision of {name} served that is still kept; `ortolan rollout history {name}` lists what there is, --to chooses one"
    )]
    NoneBefore {
        /// The service.
        name: String,
    },
    /// No such revision.
    #[error(
        "{name} has no revision {to}{meant}; `ortolan rollout history {name}` lists what there is"
    )]
    NoRevision {
        /// The service.
        name: String,
        /// What was written.
        to: String,
        /// What may have been meant.
        meant: String,
    },
    /// It is the spec's.
    #[error("{0} is what the spec says already: there is nothing to undo")]
    Same(String),
}

/// The revision of the spec as it is, if it is kept.
pub fn current<'a>(service: &InferenceService, kept: &'a [Kept]) -> Option<&'a Kept> {
    let wanted = Template::of(&service.spec).canonical();
    kept.iter().find(|revision| revision.canonical == wanted)
}

/// The revision to go back to: the one that is named, else the one that served last of the others.
///
/// # Errors
/// A sentence with what to write instead.
pub fn target<'a>(
    service: &InferenceService,
    kept: &'a [Kept],
    to: Option<&str>,
) -> Result<&'a Kept, Refusal> {
    let name = service.name_any();
    let current = current(service, kept).map(|revision| revision.name.as_str());
    let Some(to) = to else {
        let before = kept
            .iter()
            .filter(|revision| Some(revision.name.as_str()) != current);
        let served = before.filter(|revision| revision.stable_since.is_some());
        let last = served.max_by_key(|revision| (revision.stable_since, revision.number));
        return last.ok_or(Refusal::NoneBefore { name });
    };
    let is_meant = |revision: &&Kept| {
        revision.name == to
            || facts::short(&name, &revision.name) == to
            || revision.number.to_string() == to
    };
    match kept.iter().find(is_meant) {
        Some(revision) if Some(revision.name.as_str()) == current => {
            Err(Refusal::Same(revision.name.clone()))
        }
        Some(revision) => Ok(revision),
        None => {
            let meant = meant(to, kept.iter().map(|revision| revision.name.as_str()));
            Err(Refusal::NoRevision {
                name,
                to: to.to_owned(),
                meant,
            })
        }
    }
}

/// A JSON Patch that writes the parts of a template over those of a spec, if the object is still of this version.
pub fn patch(spec: &Value, template: &Value, resource_version: &str) -> Value {
    let mut steps =
        vec![json!({"op": "test", "path": "/metadata/resourceVersion", "value": resource_version})];
    for part in PARTS {
        let path = format!("/spec/{part}");
        match (template.get(part), spec.get(part)) {
            (Some(wanted), _) => steps.push(json!({"op": "add", "path": path, "value": wanted})),
            (None, Some(_)) => steps.push(json!({"op": "remove", "path": path})),
            (None, None) => {}
        }
    }
    Value::Array(steps)
}

/// Undoes.
///
/// # Errors
/// When there is nothing to go back to, or it cannot be written.
pub async fn run(cluster: &Cluster, options: &Undo) -> Result<Exit, Error> {
    let name = &options.name;
    for _ in 0..TRIES {
        let found = cluster.service(name).await?;
        let kept: Vec<Kept> = cluster
            .revisions(name)
            .await?
            .iter()
            .filter_map(Kept::read)
            .collect();
        let target = target(&found.service, &kept, options.to.as_deref());
        let target = target.map_err(|refusal| Error::Refused(refusal.to_string()))?;
        let version = found.service.resource_version().unwrap_or_default();
        let patch = patch(&found.raw["spec"], &target.template, &version);
        match write(cluster, name, &patch).await {
            Ok(()) => {
                println!("{}", told(&found, target));
                return Ok(Exit::Done);
            }
            // A test that does not hold is answered with 422, as is a spec that is refused: which, the object tells.
            Err(error) if matches!(error.code(), Some(409 | 422)) => {
                let now = cluster.service(name).await?.service.resource_version();
                if now.as_deref() == Some(&version) {
                    return Err(error);
                }
            }
            Err(error) => return Err(error),
        }
    }
    Err(Error::Conflict(name.clone()))
}

async fn write(cluster: &Cluster, name: &str, patch: &Value) -> Result<(), Error> {
    let url = InferenceService::url_path(&(), Some(&cluster.namespace));
    let request = http::Request::patch(format!("{url}/{name}?fieldManager={MANAGER}"))
        .header(http::header::CONTENT_TYPE, "application/json-patch+json")
        .body(patch.to_string().into_bytes())
        .map_err(|error| {
            Error::Refused(format!(
                "{name:?} is no name of an InferenceService: {error}"
            ))
        })?;
    let written = cluster.client.request::<Value>(request).await;
    written.map_err(Error::api(format!("writing the spec of {name}")))?;
    Ok(())
}

fn told(found: &Found, target: &Kept) -> String {
    let name = found.name();
    let uri = target.template["model"]["uri"].as_str().unwrap_or_default();
    let by = owner(&found.raw).map_or_else(String::new, |tool| format!(" ({tool} does)"));
    format!(
        "the spec of {name} is again that of {} ({uri}); `ortolan rollout status {name}` follows it\n\
         If a GitOps tool writes this object{by}, it will set it back: change it in Git, too",
        target.name
    )
}

/// The tool that an object's own marks name.
fn owner(object: &Value) -> Option<&'static str> {
    let meta = &object["metadata"];
    let has = |place: &str, prefix: &str| {
        let keys = meta[place].as_object();
        keys.is_some_and(|keys| keys.keys().any(|key| key.starts_with(prefix)))
    };
    if has("annotations", "argocd.argoproj.io/") || has("labels", "argocd.argoproj.io/") {
        Some("Argo CD")
    } else if has("labels", "kustomize.toolkit.fluxcd.io/")
        || has("labels", "helm.toolkit.fluxcd.io/")
    {
        Some("Flux")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(uri: &str) -> InferenceService {
        let object = json!({
            "apiVersion": "serving.ortolan.dev/v1alpha1", "kind": "InferenceService",
            "metadata": {"name": "cats"}, "spec": {"model": {"uri": uri}},
        });
        serde_json::from_value(object).expect("a service")
    }

    fn kept(name: &str, number: i64, uri: &str, stable: Option<&str>) -> Kept {
        let annotations = stable.map(|at| json!({"serving.ortolan.dev/stable": at}));
        let object = json!({
            "metadata": {"name": name, "annotations": annotations}, "revision": number,
            "data": {"template": {"model": {"uri": uri}}, "resolved": {"image": "i", "pod": {}}},
        });
        Kept::read(&serde_json::from_value(object).expect("a revision"))
            .expect("it is the operator's")
    }

    fn three() -> Vec<Kept> {
        vec![
            kept(
                "cats-aaaaaaaa",
                1,
                "https://m/1.onnx",
                Some("2026-01-01T00:00:00Z"),
            ),
            kept(
                "cats-bbbbbbbb",
                2,
                "https://m/2.onnx",
                Some("2026-01-02T00:00:00Z"),
            ),
            kept("cats-cccccccc", 3, "https://m/3.onnx", None),
        ]
    }

    #[test]
    fn undo_goes_back_to_what_served_last_beside_the_specs_own() {
        let kept = three();
        for (spec, back) in [
            // Served: the one before.
            ("https://m/2.onnx", "cats-aaaaaaaa"),
            // Under way or failed: what serves.
            ("https://m/3.onnx", "cats-bbbbbbbb"),
            // Not seen by the operator yet.
            ("https://m/4.onnx", "cats-bbbbbbbb"),
            ("https://m/1.onnx", "cats-bbbbbbbb"),
        ] {
            let to = target(&service(spec), &kept, None).expect(spec);
            assert_eq!(to.name, back, "{spec}");
        }
    }

    #[test]
    fn a_revision_is_named_by_its_name_its_last_part_or_its_number() {
        let kept = three();
        for to in ["cats-aaaaaaaa", "aaaaaaaa", "1"] {
            let target = target(&service("https://m/2.onnx"), &kept, Some(to));
            assert_eq!(target.map(|kept| kept.number), Ok(1), "{to}");
        }
    }

    #[test]
    fn what_cannot_be_undone_says_why() {
        let kept = three();
        let now = service("https://m/2.onnx");
        for (kept, to, says) in [
            (
                &kept[..],
                Some("cats-bbbbbbbb"),
                "is what the spec says already",
            ),
            (
                &kept[..],
                Some("cats-aaaaaaab"),
                "did you mean cats-aaaaaaaa?",
            ),
            (
                &kept[..],
                Some("9"),
                "has no revision 9; `ortolan rollout history cats`",
            ),
            (&kept[1..], None, "no earlier revision of cats served"),
            (&[], None, "no earlier revision"),
        ] {
            let error = target(&now, kept, to).expect_err(says).to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn a_patch_replaces_whole_parts_and_removes_what_was_not_there() {
        let spec = json!({"model": {"uri": "b", "version": "2"}, "pod": {"labels": {"a": "b"}}, "scaling": {"minReplicas": 2}});
        let template = json!({"model": {"uri": "a"}, "server": {"threads": 2}});
        assert_eq!(
            patch(&spec, &template, "17"),
            json!([
                {"op": "test", "path": "/metadata/resourceVersion", "value": "17"},
                {"op": "add", "path": "/spec/model", "value": {"uri": "a"}},
                {"op": "add", "path": "/spec/server", "value": {"threads": 2}},
                {"op": "remove", "path": "/spec/pod"},
            ])
        );
    }

    #[test]
    fn the_tool_that_will_set_it_back_is_named() {
        for (meta, tool) in [
            (json!({}), None),
            (
                json!({"annotations": {"argocd.argoproj.io/tracking-id": "x"}}),
                Some("Argo CD"),
            ),
            (
                json!({"labels": {"kustomize.toolkit.fluxcd.io/name": "x"}}),
                Some("Flux"),
            ),
        ] {
            assert_eq!(owner(&json!({"metadata": meta})), tool);
        }
    }
}
