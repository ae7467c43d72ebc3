//! Leader election over a `coordination.k8s.io/v1` Lease: what to do with what was read.
//!
//! The rules are those of client-go. A lease that another holder keeps renewing is left alone; whether
//! it is renewed is judged by *our* clock, from when we last saw the record change, so clocks that
//! differ do no harm. A leader that could not renew for [`Terms::renew_deadline`] has to stop writing,
//! which is before [`Terms::duration`] lets anybody else begin.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::LeaseSpec;

/// How long things may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// How long a holder that does not renew keeps the lease.
    pub duration: Duration,
    /// How long a leader goes on trying to renew before it stops.
    pub renew_deadline: Duration,
    /// How often the lease is looked at.
    pub retry: Duration,
}

impl Default for Terms {
    /// The values that Kubernetes' own controllers use.
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nobody holds it: write ourselves in.
    Acquire,
    /// We hold it: renew.
    Renew,
    /// Another holds it: look again later.
    Wait,
    /// We led, and no longer may: stop writing at once.
    Lost,
}

/// What a candidate remembers between two looks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// The record as last seen, and for how long it has stood unchanged by our clock.
    pub unchanged_for: Duration,
    /// Whether we lead.
    pub leading: bool,
    /// How long ago we last renewed.
    pub since_renewal: Duration,
}

/// Decides from the record (`None`: there is no Lease), our identity and our memory.
#[must_use]
pub fn evaluate(record: Option<&LeaseSpec>, me: &str, memory: &Memory, terms: &Terms) -> Verdict {
    let holder = record
        .and_then(|spec| spec.holder_identity.as_deref())
        .filter(|holder| !holder.is_empty());
    if memory.leading {
        return match holder {
            Some(holder) if holder == me && memory.since_renewal < terms.renew_deadline => {
                Verdict::Renew
            }
            _ => Verdict::Lost,
        };
    }
    match holder {
        None => Verdict::Acquire,
        // Our own record from before a crash: taking it back at once is what a restart wants.
        Some(holder) if holder == me => Verdict::Acquire,
        Some(_) => {
            let held_for = record
                .and_then(|spec| spec.lease_duration_seconds)
                .and_then(|seconds| u64::try_from(seconds).ok())
                .map_or(terms.duration, Duration::from_secs);
            if memory.unchanged_for > held_for {
                Verdict::Acquire
            } else {
                Verdict::Wait
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held_by(holder: &str) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.into()),
            lease_duration_seconds: Some(15),
            ..LeaseSpec::default()
        }
    }

    fn memory(unchanged: u64, leading: bool, since_renewal: u64) -> Memory {
        Memory {
            unchanged_for: Duration::from_secs(unchanged),
            leading,
            since_renewal: Duration::from_secs(since_renewal),
        }
    }

    #[test]
    fn every_case_of_the_table() {
        let terms = Terms::default();
        let other = held_by("b");
        let mine = held_by("a");
        let released = held_by("");
        let cases: [(&str, Option<&LeaseSpec>, Memory, Verdict); 10] = [
            ("no lease", None, memory(0, false, 0), Verdict::Acquire),
            (
                "released",
                Some(&released),
                memory(0, false, 0),
                Verdict::Acquire,
            ),
            (
                "held by another, fresh",
                Some(&other),
                memory(3, false, 0),
                Verdict::Wait,
            ),
            (
                "held by another, at the edge",
                Some(&other),
                memory(15, false, 0),
                Verdict::Wait,
            ),
            (
                "held by another, stale",
                Some(&other),
                memory(16, false, 0),
                Verdict::Acquire,
            ),
            (
                "ours from before a crash",
                Some(&mine),
                memory(0, false, 0),
                Verdict::Acquire,
            ),
            ("ours", Some(&mine), memory(0, true, 2), Verdict::Renew),
            (
                "ours, but not renewed in time",
                Some(&mine),
                memory(0, true, 10),
                Verdict::Lost,
            ),
            (
                "taken from us",
                Some(&other),
                memory(0, true, 2),
                Verdict::Lost,
            ),
            ("deleted under us", None, memory(0, true, 2), Verdict::Lost),
        ];
        for (name, record, memory, expected) in cases {
            assert_eq!(evaluate(record, "a", &memory, &terms), expected, "{name}");
        }
    }

    #[test]
    fn a_leader_stops_before_anybody_else_may_begin() {
        let terms = Terms::default();
        assert!(terms.renew_deadline + terms.retry < terms.duration);
    }
}
