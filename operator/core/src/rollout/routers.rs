//! What the routers say of one service, as a value: their counts, and whether all of them were heard of.

use std::collections::BTreeMap;

use jiff::Timestamp;
use ortolan_stats::{Example, Outcome};

/// What is known of one service from the routers. Nothing of it is known without routers: then it is the default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Routers {
    /// The routers that were heard of lately.
    pub routers: Vec<RouterStats>,
    /// Whether every router that may have requests was heard of lately, and there is at least one.
    pub complete: bool,
    /// The traffic generation that every live router follows; `None` when they differ or say none.
    pub followed: Option<u64>,
    /// What each revision did in the last ten minutes, over all routers.
    pub recent: BTreeMap<String, Outcome>,
}

/// What one router says.
#[derive(Clone, Debug, PartialEq)]
pub struct RouterStats {
    /// Its name.
    pub name: String,
    /// When its counts began.
    pub started: Timestamp,
    /// The traffic generation that it follows.
    pub generation: Option<u64>,
    /// What ended, by the generation under which it arrived and the revision that it was first given to.
    pub generations: BTreeMap<u64, BTreeMap<String, Outcome>>,
    /// Copies of requests whose answers differ.
    pub examples: Vec<Example>,
}
