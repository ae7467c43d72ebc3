//! Looks at a service until something has become of it.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use k8s_openapi::api::events::v1::Event;
use kube::{ResourceExt as _, api::ListParams};

use super::outcome::{Goal, Outcome, is_looked_at, outcome};
use crate::{
    cluster::{Cluster, Found},
    error::Error,
    exit::Exit,
};

/// Between two looks; the operator looks at a rollout every two seconds.
const LOOK: Duration = Duration::from_secs(1);
/// How long an API server may be away before a wait without an end is given up.
const AWAY: Duration = Duration::from_secs(300);
/// How many looks after a command a refusal may be told of: the operator writes the status first, then the event.
const REFUSALS: u32 = 5;
/// The reason of the operator's event about a command that it does not obey.
const REFUSED: &str = "CommandRefused";

/// How long to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// One look.
    None,
    /// So long; `None` without an end.
    Until(Option<Duration>),
}

/// A command that was written.
pub struct Issued {
    /// The annotation.
    pub text: String,
    /// The refusals that were there before.
    pub known: BTreeSet<String>,
}

/// What is waited for.
pub struct Waiting<'a> {
    /// The service.
    pub name: &'a str,
    /// What for.
    pub goal: Goal,
    /// Whose rollout; the spec's when absent.
    pub revision: Option<&'a str>,
    /// After this command.
    pub command: Option<Issued>,
    /// How long.
    pub patience: Patience,
}

impl Waiting<'_> {
    /// Waits, and tells each change in a line.
    ///
    /// # Errors
    /// When the service is gone, the command is refused, or the API server says no.
    pub async fn run(&self, cluster: &Cluster) -> Result<Exit, Error> {
        let start = Instant::now();
        let mut away = None;
        let mut told = String::new();
        let mut looks = 0;
        loop {
            match cluster.service(self.name).await {
                Ok(found) => {
                    away = None;
                    let (exit, line) = self.judge(cluster, &found, &mut looks).await?;
                    if told != line {
                        println!("{line}");
                        told = line;
                    }
                    match (exit, self.patience) {
                        (Some(exit), _) => return Ok(exit),
                        (None, Patience::None) => return Ok(Exit::TimedOut),
                        (None, Patience::Until(_)) => {}
                    }
                }
                Err(error) if error.is_transient() && self.patience != Patience::None => {
                    let since = away.get_or_insert_with(|| {
                        eprintln!("{error}; it is asked again");
                        Instant::now()
                    });
                    if since.elapsed() > AWAY {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
            if let Patience::Until(Some(limit)) = self.patience
                && start.elapsed() >= limit
            {
                eprintln!(
                    "not within {} s; `ortolan status {}` shows more",
                    limit.as_secs(),
                    self.name
                );
                return Ok(Exit::TimedOut);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// How it ends, if it does, and what to tell.
    async fn judge(
        &self,
        cluster: &Cluster,
        found: &Found,
        looks: &mut u32,
    ) -> Result<(Option<Exit>, String), Error> {
        if let Some(command) = &self.command {
            if !is_looked_at(&found.service, &command.text) {
                return Ok((
                    None,
                    format!(
                        "{}: the operator has not looked at the command yet",
                        self.name
                    ),
                ));
            }
            *looks += 1;
            if *looks <= REFUSALS
                && let Some(why) = refusal(cluster, self.name, &command.known).await?
            {
                return Err(Error::Refused(why));
            }
        }
        Ok(match outcome(&found.service, self.goal, self.revision) {
            Outcome::UnderWay(line) => (None, line),
            Outcome::Reached(line) => (Some(Exit::Done), line),
            Outcome::Failed(line) => (Some(Exit::Failed), line),
            Outcome::Waiting(line) => (Some(Exit::Waiting), line),
        })
    }
}

/// The refusals that the operator told of so far, each as it is now.
///
/// # Errors
/// When the API server says no.
pub async fn refusals(cluster: &Cluster, name: &str) -> Result<BTreeSet<String>, Error> {
    Ok(events(cluster, name).await?.iter().map(mark).collect())
}

/// A refusal that was not there before.
async fn refusal(
    cluster: &Cluster,
    name: &str,
    known: &BTreeSet<String>,
) -> Result<Option<String>, Error> {
    let events = events(cluster, name).await?;
    let new = events
        .into_iter()
        .find(|event| !known.contains(&mark(event)));
    Ok(new.map(|event| {
        event
            .note
            .unwrap_or_else(|| "the operator refuses the command".into())
    }))
}

async fn events(cluster: &Cluster, name: &str) -> Result<Vec<Event>, Error> {
    let of = ListParams::default().fields(&format!("reason={REFUSED}"));
    let events = cluster.api::<Event>().list(&of).await;
    let events = match events.map_err(Error::api("listing events")) {
        Ok(events) => events.items,
        // Whoever may not read events waits for the outcome alone.
        Err(error) if error.code() == Some(403) => Vec::new(),
        Err(error) => return Err(error),
    };
    let is_of = |event: &Event| {
        let regarding = event.regarding.as_ref();
        regarding.is_some_and(|it| {
            it.name.as_deref() == Some(name) && it.kind.as_deref() == Some("InferenceService")
        })
    };
    Ok(events.into_iter().filter(is_of).collect())
}

/// An event and how often it was told: one that is told again is written anew.
fn mark(event: &Event) -> String {
    format!(
        "{}@{}",
        event.name_any(),
        event.resource_version().unwrap_or_default()
    )
}
