//! The repository index: what there is, in which state, and why.

use std::collections::BTreeSet;

use ortolan_model::{Failure, Folder};
use serde::Serialize;

use super::{Keeper, Record};
use crate::{app::App, catalog::State};

/// A model whose folder is refused has no version; it stands under this one in the catalog.
pub(super) const NO_VERSION: &str = "";

/// One line of the index, as Triton's repository extension defines it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// The model.
    pub name: String,
    /// Empty: its folder is refused.
    pub version: String,
    /// READY, LOADING or UNAVAILABLE.
    pub state: &'static str,
    /// Why it is not ready; or what is wrong although it is.
    pub reason: String,
}

/// Everything that the server has or could load; `only_ready`: what can be asked now.
pub async fn index(app: &App, only_ready: bool) -> Result<Vec<Entry>, Failure> {
    let mut entries: Vec<Entry> = app
        .catalog
        .list()
        .into_iter()
        .map(|listed| {
            let (state, reason) = match listed.state {
                State::Ready(_) => ("READY", String::new()),
                State::Loading(startup) => {
                    ("LOADING", format!("phase: {}", startup.snapshot().phase))
                }
                State::Failed(reason) => ("UNAVAILABLE", reason),
            };
            Entry {
                name: listed.name,
                version: listed.version,
                state,
                reason,
            }
        })
        .collect();
    if let Some(keeper) = app.repository() {
        keeper.explain(&mut entries);
        if !only_ready {
            keeper.add_what_is_not_loaded(&mut entries).await?;
        }
    }
    if only_ready {
        entries.retain(|entry| entry.state == "READY");
    }
    entries.sort_by(|a, b| {
        (&a.name, a.version.len(), &a.version).cmp(&(&b.name, b.version.len(), &b.version))
    });
    Ok(entries)
}

impl Keeper {
    /// A model that serves, and whose reload failed or whose files say more than is acted on.
    fn explain(&self, entries: &mut [Entry]) {
        let records = self.records();
        for entry in entries.iter_mut().filter(|entry| entry.state == "READY") {
            if let Some(record) = records.get(&entry.name) {
                entry.reason = remark(record, &entry.version);
            }
        }
    }

    async fn add_what_is_not_loaded(&self, entries: &mut Vec<Entry>) -> Result<(), Failure> {
        if self.control != super::Control::Explicit {
            return Ok(());
        }
        let there: BTreeSet<String> = entries.iter().map(|entry| entry.name.clone()).collect();
        let listing = self.look().await?;
        let others = listing
            .models
            .into_iter()
            .filter(|(name, _)| !there.contains(name));
        entries.extend(others.flat_map(|(name, seen)| not_loaded(&name, seen)));
        Ok(())
    }
}

fn remark(record: &Record, version: &str) -> String {
    let known = version
        .parse()
        .ok()
        .and_then(|version: u64| record.versions.get(&version));
    let failed = known
        .and_then(|known| known.failed.as_ref())
        .or(record.failed.as_ref());
    match failed {
        Some(failure) => {
            format!("what was loaded before serves on; the last reload failed: {failure}")
        }
        None => record.notes.join("; "),
    }
}

fn not_loaded(name: &str, seen: Result<Folder, Failure>) -> Vec<Entry> {
    let entry = |version: String, reason: String| Entry {
        name: name.to_owned(),
        version,
        state: "UNAVAILABLE",
        reason,
    };
    match seen {
        Ok(folder) => folder
            .versions
            .into_keys()
            .map(|version| entry(version.to_string(), "unloaded".to_owned()))
            .collect(),
        Err(failure) => vec![entry(NO_VERSION.to_owned(), failure.to_string())],
    }
}
