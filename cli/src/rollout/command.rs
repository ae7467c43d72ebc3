//! Writes a command: the annotation `serving.ortolan.dev/command: <verb> <revision> <nonce>`.
//!
//! It is written only onto the object that was decided by (`metadata.resourceVersion` in the patch). The status of a
//! service under way changes every few seconds, so a conflict is read and decided anew.

use std::hash::{BuildHasher as _, RandomState};

use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use ortolan_core::rollout::command::Verb;
use ortolan_crds::{InferenceService, names};
use serde_json::json;

use super::{
    decide::{Decision, decide},
    outcome::Goal,
    wait::{self, Issued, Patience, Waiting},
};
use crate::{cluster::Cluster, error::Error, exit::Exit, options::Steer};

/// The field manager of what a person writes through this program.
pub const MANAGER: &str = "ortolan-cli";
/// How often a conflict is decided anew: each takes a round trip, and the operator writes every two seconds at most.
pub const TRIES: usize = 8;

/// Commands, and waits when that was asked for.
///
/// # Errors
/// When the command makes no sense now, or cannot be written.
pub async fn run(cluster: &Cluster, verb: Verb, options: &Steer) -> Result<Exit, Error> {
    let known = match options.wait {
        true => wait::refusals(cluster, &options.name).await?,
        false => Default::default(),
    };
    let (revision, text) = write(cluster, verb, options).await?;
    if !options.wait {
        return Ok(Exit::Done);
    }
    let goal = match verb {
        Verb::Promote | Verb::Resume | Verb::Retry => Goal::Promoted,
        Verb::Abort => Goal::TakenBack,
        Verb::Pause => Goal::Paused,
    };
    let waiting = Waiting {
        name: &options.name,
        goal,
        revision: Some(&revision),
        command: text.map(|text| Issued { text, known }),
        patience: Patience::Until(options.timeout.0),
    };
    waiting.run(cluster).await
}

/// The revision, and the command where one was written.
async fn write(
    cluster: &Cluster,
    verb: Verb,
    options: &Steer,
) -> Result<(String, Option<String>), Error> {
    let name = &options.name;
    for _ in 0..TRIES {
        let found = cluster.service(name).await?;
        let decision = decide(&found.service, verb, options.revision.as_deref());
        let revision = match decision.map_err(|refusal| Error::Refused(refusal.to_string()))? {
            Decision::Already(revision, sentence) => {
                println!("{sentence}");
                return Ok((revision, None));
            }
            Decision::Command(revision) => revision,
        };
        let text = format!("{verb} {revision} {}", nonce());
        let patch = json!({"metadata": {
            "resourceVersion": found.service.metadata.resource_version,
            "annotations": {names::COMMAND: text},
        }});
        let params = PatchParams {
            field_manager: Some(MANAGER.into()),
            ..PatchParams::default()
        };
        let api = cluster.api::<InferenceService>();
        let written = api
            .patch_metadata(name, &params, &Patch::Merge(patch))
            .await;
        let written = written.map_err(Error::api(format!("writing the command onto {name}")));
        match written {
            Ok(_) => {
                println!("{verb} {revision}: commanded");
                return Ok((revision, Some(text)));
            }
            Err(error) if error.code() == Some(409) => {}
            Err(error) => return Err(error),
        }
    }
    Err(Error::Conflict(name.clone()))
}

/// No two commands are the same: the time, for people, and 32 bits of chance.
fn nonce() -> String {
    let chance = RandomState::new().hash_one(()) >> 32;
    format!("{}-{chance:08x}", Timestamp::now().as_millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_commands_are_the_same_and_each_is_one_word() {
        let (one, other) = (nonce(), nonce());
        assert_ne!(one, other);
        assert_eq!(one.split_whitespace().count(), 1);
        let text = format!("{} cats-1a2b3c4d {one}", Verb::Promote);
        let read: ortolan_core::rollout::command::Command =
            text.parse().expect("the operator reads it");
        assert_eq!(read.nonce, one);
        // The operator looks at no more than this many characters.
        assert!(text.len() < 200);
    }
}
