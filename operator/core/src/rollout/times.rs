//! How long things take, and why so long.

use std::time::Duration;

/// How long the candidate is watched with all of the traffic before the old pods may go. A candidate
/// with ten times the errors is caught in 50 to 130 s against a frozen rate.
pub const SETTLE: Duration = Duration::from_secs(120);
/// How long a candidate that lost its traffic keeps its pods: the default timeout of a request.
pub const DRAIN: Duration = Duration::from_secs(30);
/// How long a candidate may be without a ready pod: a pod that was drained from its node is replaced
/// within that; one that crashes is told of by its pods' own failure.
pub const LOST: Duration = Duration::from_secs(60);
/// How long a stable revision may take to get back its pods before a candidate that fails is left
/// nevertheless.
pub const PATIENCE: Duration = Duration::from_secs(300);
/// How long the old revision keeps all its pods after a promotion: undoing it costs nothing.
pub const KEEP_PODS: Duration = Duration::from_secs(600);
/// How often a rollout under way is looked at.
pub const LOOK: Duration = Duration::from_secs(2);
/// A candidate below this part of the stable revision's capacity is told of.
pub const LEAST_CAPACITY: f64 = 0.8;
