//! What one replica carries at the objective: measured by the user, or learned from service times.
//!
//! As the share of requests whose service alone is slower than the objective nears the budget, the model's capacity
//! runs to zero, and the number of replicas away with it. So the capacity of parallel executions is never below 0.3 of
//! their saturation. Where more requests than the budget are slower without any queue, no number of replicas helps:
//! they are then run at 0.7 of their saturation.

use std::{num::NonZeroU32, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    config::{Latency, Server},
    correction::Share,
    sample::Work,
    slots::{self, Service},
    units::{PerSecond, float},
};

/// Completions from which a capacity is learned.
pub const ENOUGH: u64 = 50;
/// The least capacity, as a share of the saturation.
const FLOOR: f64 = 0.3;
/// The load where the objective cannot be kept, as a share of the saturation.
const UNATTAINABLE: f64 = 0.7;

/// The most that a capacity is corrected to, as a share of the saturation: a replica that idles less has no room for
/// the time in which another one starts.
const MOST: f64 = 0.8;

/// What was learned of one replica.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Learned {
    /// For which objective.
    pub latency: Latency,
    /// Requests a second at the objective, before the correction; above 0.
    pub rate: PerSecond,
    /// The most that it may be corrected to.
    pub most: PerSecond,
    /// What keeps it from being the model's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Limit>,
    /// The share of requests whose service alone is slower than the objective.
    pub unavoidable: f64,
}

/// What keeps a capacity from being the model's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Limit {
    /// The objective is hardly above the service time: the floor holds.
    NearFloor,
    /// The objective is below the service time.
    Unattainable {
        /// The percentile of the service time itself.
        floor: Duration,
    },
}

/// Where a capacity comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Source {
    /// The user measured it.
    Measured,
    /// From service times.
    Learned,
}

/// Requests in flight for each replica while nothing is learned: 0.7 of the executions, half of a batch.
#[must_use]
pub fn unlearned(server: Server) -> f64 {
    match server {
        Server::Slots { parallel } => 0.7 * float(parallel),
        Server::Batching { most, parallel } => (0.5 * float(most) * float(parallel)).max(0.7),
    }
}

/// Learns from what warm pods did; `None` while that is too little to tell. `before` is what was learned so far: what
/// is once known to be unattainable stays so until the service is faster than the objective, noise or not.
#[must_use]
pub fn learn(
    server: Server,
    latency: Latency,
    work: &Work,
    before: Option<&Learned>,
) -> Option<Learned> {
    let all = work.service.total();
    if all < ENOUGH {
        return None;
    }
    let service = Service::of(&work.service)?;
    let Latency {
        percentile,
        objective,
    } = latency;
    let unavoidable = service.slower(objective);
    let floor = work.service.quantile(percentile.share())?;
    let was = before.is_some_and(|before| {
        before.latency == latency && matches!(before.limit, Some(Limit::Unattainable { .. }))
    });
    let (rate, saturation, limit) = match server {
        Server::Slots { parallel } => {
            let model = slots::capacity(&service, parallel, objective, percentile.budget());
            let slow = Share::of((unavoidable * all as f64) as u64, all)?;
            let sure = slow.share - 2.0 * slow.error > percentile.budget();
            let saturation = service.saturation(parallel);
            let (rate, limit) = floored(model, saturation, was || sure, floor);
            (rate, saturation, limit)
        }
        Server::Batching { most, parallel } => batched(most, parallel, latency, work, floor)?,
    };
    Some(Learned {
        latency,
        rate: PerSecond::positive(rate)?,
        most: PerSecond::positive(rate.max(MOST * saturation))?,
        limit,
        unavoidable,
    })
}

fn floored(
    model: Option<PerSecond>,
    saturation: f64,
    unattainable: bool,
    floor: Duration,
) -> (f64, Option<Limit>) {
    let least = FLOOR * saturation;
    match model.map(PerSecond::get) {
        Some(rate) if rate >= least => (rate, None),
        None if unattainable => (
            UNATTAINABLE * saturation,
            Some(Limit::Unattainable { floor }),
        ),
        _ => (least, Some(Limit::NearFloor)),
    }
}

fn batched(
    most: NonZeroU32,
    parallel: NonZeroU32,
    latency: Latency,
    work: &Work,
    floor: Duration,
) -> Option<(f64, f64, Option<Limit>)> {
    let line = work.batches.fit()?;
    let one = line.capacity(most, latency.objective, latency.percentile);
    let saturation = float(parallel) * line.saturation(most);
    Some(match one {
        Some(rate) => (float(parallel) * rate.get(), saturation, None),
        None => (
            UNATTAINABLE * saturation,
            saturation,
            Some(Limit::Unattainable { floor }),
        ),
    })
}
