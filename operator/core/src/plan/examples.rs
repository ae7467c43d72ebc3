//! Examples of answers that differ: what the routers tell of them is kept in a ConfigMap, for people.
//!
//! Inputs: the rollout, the routers' examples, the ConfigMap as it is. Output: a write, when something changes, and the
//! ConfigMap's name for the status. Invariants: at most [`MOST`] are kept, the first ones, of at most [`LONGEST`] bytes
//! each; those of one pair of revisions only; what is kept stays until the next rollout; nothing depends on this write,
//! and none is made while nothing changes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use ortolan_crds::{RolloutPhase, RolloutStatus, names};
use ortolan_stats::Example;

use super::{Kind, Object, Planner, Write, objects};
use crate::{build, observed::find};

/// Examples that are kept.
pub const MOST: usize = 20;
/// The longest example in bytes; the ConfigMap is at most 20 times as long, far below the limit of an object (1 MiB).
pub const LONGEST: usize = 4096;

impl Planner<'_> {
    /// What is to be written, and the ConfigMap's name where there are examples of this rollout.
    pub(super) fn examples(
        &self,
        rollout: Option<&RolloutStatus>,
    ) -> (Option<Write>, Option<String>) {
        let name = names::examples(self.observed.name());
        let live = find(&self.observed.config_maps, |c| &c.metadata, &name);
        if live.is_some_and(|map| !self.observed.owns(&map.metadata)) {
            // Somebody else's.
            return (None, None);
        }
        let pair = rollout.filter(|rollout| rollout.phase != RolloutPhase::Stable);
        let pair = pair
            .and_then(|rollout| Some((rollout.stable.as_deref()?, rollout.candidate.as_deref()?)));
        let Some((stable, candidate)) = pair else {
            return (None, None);
        };
        let kept = live.map(|map| kept(map, stable, candidate));
        let lines = self.merged(
            kept.clone().flatten().unwrap_or_default(),
            stable,
            candidate,
        );
        if lines.is_empty() {
            let other = live.filter(|_| kept == Some(None));
            return (
                other.map(|map| objects::delete(Kind::ConfigMap, &map.metadata)),
                None,
            );
        }
        let mut object = build::examples(&self.owner, stable, candidate, &lines);
        let desired = objects::seal(&mut object, |map| &mut map.metadata);
        let write = objects::differs(&desired, live).then(|| Write::Apply {
            object: Object::ConfigMap(Box::new(object)),
            ours: live.is_some(),
        });
        (write, Some(name))
    }

    /// What was kept, and then what the routers tell beside it, in the order of its time.
    fn merged(&self, mut lines: Vec<String>, stable: &str, candidate: &str) -> Vec<String> {
        let told = self.observed.routers.routers.iter();
        let mut told: Vec<&Example> = told
            .flat_map(|router| &router.examples)
            .filter(|example| example.stable == stable && example.candidate == candidate)
            .collect();
        told.sort_by(|a, b| (a.at, &a.body_sha256).cmp(&(b.at, &b.body_sha256)));
        for example in told {
            if lines.len() >= MOST {
                break;
            }
            // An example is JSON, whatever it holds.
            let line = serde_json::to_string(&example.clone().bounded()).unwrap_or_default();
            if !line.is_empty() && line.len() <= LONGEST && !lines.contains(&line) {
                lines.push(line);
            }
        }
        lines
    }
}

/// The lines that a ConfigMap holds of these revisions; `None`: it is of others. A line that is no example any more
/// (edited by hand) is left out.
fn kept(map: &ConfigMap, stable: &str, candidate: &str) -> Option<Vec<String>> {
    let absent = BTreeMap::new();
    let data = map.data.as_ref().unwrap_or(&absent);
    let is = |key: &str, name: &str| data.get(key).is_some_and(|value| value == name);
    if !is(names::EXAMPLES_STABLE, stable) || !is(names::EXAMPLES_CANDIDATE, candidate) {
        return None;
    }
    let lines = data.get(names::EXAMPLES_KEY).map_or("", String::as_str);
    let lines = lines.lines().filter(|line| line.len() <= LONGEST);
    let read = lines.filter(|line| serde_json::from_str::<Example>(line).is_ok());
    Some(read.take(MOST).map(str::to_owned).collect())
}
