//! `ortolan rollout history`: the revisions that are kept.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::{apps::v1::ControllerRevision, core::v1::ConfigMap};
use kube::{ResourceExt as _, api::ListParams};
use ortolan_crds::{InferenceService, names};
use serde::Serialize;

use super::undo::{self, Kept};
use crate::{
    cluster::Cluster, error::Error, exit::Exit, options::History, output, table::Table, time,
};

/// A line of the history.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// Its place in the order of revisions.
    pub number: i64,
    /// Its name.
    pub revision: String,
    /// The model's URI.
    pub model: String,
    /// The server's image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// What the model's file hashes to, given or recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// When it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// When it became the one that serves; the latest serves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stable_since: Option<Timestamp>,
    /// Whether it serves.
    pub stable: bool,
    /// Whether it is what the spec says.
    pub current: bool,
}

/// Lists.
///
/// # Errors
/// When there is no such service, or the API server says no.
pub async fn run(cluster: &Cluster, options: &History) -> Result<Exit, Error> {
    let found = cluster.service(&options.name).await?;
    let revisions = cluster.revisions(&options.name).await?;
    let digests = digests(cluster, &options.name).await;
    let lines = history(&found.service, &revisions, &digests);
    match options.output {
        Some(format) => output::print_as(&lines, format)?,
        None if lines.is_empty() => eprintln!(
            "{} has no revision yet: is the operator running?",
            options.name
        ),
        None => output::print(&table(&lines, Timestamp::now()).render())?,
    }
    Ok(Exit::Done)
}

/// Digests that pods reported, by revision: the ConfigMap of each holds it. Whoever may not read them does without.
async fn digests(cluster: &Cluster, service: &str) -> BTreeMap<String, String> {
    let of = ListParams::default().labels(&format!("{}={service}", names::SERVICE));
    let maps = cluster.api::<ConfigMap>().list(&of).await;
    let maps = maps.map(|list| list.items).unwrap_or_default();
    let digest = |map: ConfigMap| Some((map.name_any(), map.data?.remove(names::DIGEST_KEY)?));
    maps.into_iter().filter_map(digest).collect()
}

/// The lines, the oldest first. What is not the operator's is left out.
pub fn history(
    service: &InferenceService,
    revisions: &[ControllerRevision],
    digests: &BTreeMap<String, String>,
) -> Vec<Line> {
    let kept: Vec<(Kept, &ControllerRevision)> = revisions
        .iter()
        .filter_map(|object| Some((Kept::read(object)?, object)))
        .collect();
    let serving = kept
        .iter()
        .map(|(kept, _)| kept)
        .filter(|kept| kept.stable_since.is_some());
    let serving = serving
        .max_by_key(|kept| (kept.stable_since, kept.number))
        .map(|kept| kept.name.clone());
    let all: Vec<Kept> = kept.iter().map(|(kept, _)| kept.clone()).collect();
    let current = undo::current(service, &all).map(|kept| kept.name.clone());
    let line = |(kept, object): &(Kept, &ControllerRevision)| {
        let text = |path: &str| {
            let data = object.data.as_ref()?;
            data.0.pointer(path)?.as_str().map(str::to_owned)
        };
        Line {
            number: kept.number,
            revision: kept.name.clone(),
            model: text("/template/model/uri").unwrap_or_default(),
            image: text("/resolved/image"),
            digest: text("/template/model/digest").or_else(|| digests.get(&kept.name).cloned()),
            created: object
                .metadata
                .creation_timestamp
                .as_ref()
                .map(|time| time.0),
            stable_since: kept.stable_since,
            stable: serving.as_ref() == Some(&kept.name),
            current: current.as_ref() == Some(&kept.name),
        }
    };
    kept.iter().map(line).collect()
}

/// The table.
pub fn table(lines: &[Line], now: Timestamp) -> Table {
    let mut table = Table::new(&[
        "NUMBER",
        "REVISION",
        "MARK",
        "SERVED SINCE",
        "AGE",
        "MODEL",
        "IMAGE",
        "DIGEST",
    ]);
    for line in lines {
        let marks = [(line.stable, "stable"), (line.current, "spec")];
        let marks: Vec<&str> = marks
            .into_iter()
            .filter_map(|(is, mark)| is.then_some(mark))
            .collect();
        table.row([
            line.number.to_string(),
            line.revision.clone(),
            marks.join(","),
            line.stable_since
                .map_or_else(String::new, |since| time::age(since, now)),
            line.created
                .map_or_else(String::new, |created| time::age(created, now)),
            line.model.clone(),
            line.image.clone().unwrap_or_default(),
            line.digest.clone().unwrap_or_default(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn revision(number: i64, stable: Option<&str>, digest: Option<&str>) -> ControllerRevision {
        let annotations = stable.map(|at| json!({"serving.ortolan.dev/stable": at}));
        let object = json!({
            "metadata": {"name": format!("cats-{number}"), "annotations": annotations,
                         "creationTimestamp": format!("2026-01-0{number}T00:00:00Z")},
            "revision": number,
            "data": {"template": {"model": {"uri": format!("https://m/{number}.onnx"), "digest": digest}},
                     "resolved": {"image": "ortolan/server:1", "pod": {}}},
        });
        serde_json::from_value(object).expect("a revision")
    }

    #[test]
    fn a_history_marks_what_serves_and_what_the_spec_says() {
        let object: Value = json!({
            "apiVersion": "serving.ortolan.dev/v1alpha1", "kind": "InferenceService",
            "metadata": {"name": "cats"}, "spec": {"model": {"uri": "https://m/3.onnx"}},
        });
        let service: InferenceService = serde_json::from_value(object).expect("a service");
        let mut foreign = revision(4, None, None);
        foreign.data = None;
        let revisions = [
            revision(1, Some("2026-01-01T00:10:00Z"), Some("sha256:given")),
            revision(2, Some("2026-01-02T00:10:00Z"), None),
            revision(3, None, None),
            foreign,
        ];
        let digests = BTreeMap::from([("cats-2".to_owned(), "sha256:recorded".to_owned())]);
        let lines = history(&service, &revisions, &digests);
        let now = "2026-01-03T00:05:00Z".parse().expect("a time");
        assert_eq!(
            table(&lines, now).render(),
            "NUMBER   REVISION   MARK     SERVED SINCE   AGE   MODEL              IMAGE              DIGEST\n\
             1        cats-1     -        47h            2d    https://m/1.onnx   ortolan/server:1   sha256:given\n\
             2        cats-2     stable   23h            24h   https://m/2.onnx   ortolan/server:1   sha256:recorded\n\
             3        cats-3     spec     -              5m    https://m/3.onnx   ortolan/server:1   -\n"
        );
    }
}
