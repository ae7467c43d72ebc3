//! How many replicas a share of the traffic needs, and how much of it some replicas can take.

use super::policy::Weight;

/// What the service has to carry.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Requests a second to plan for, of the whole service: the most of the last minutes, and their
    /// trend; `None` while it is not known.
    pub planned: Option<f64>,
    /// Replicas of the whole service, as it serves now.
    pub replicas: u32,
}

/// Replicas that a share needs, of which each serves `per_replica` requests a second within the
/// objective. Unknown capacity or load: the same share of the replicas that serve now. A share above
/// nothing needs one at least.
#[must_use]
pub fn needed(weight: Weight, load: &Load, per_replica: Option<f64>) -> u32 {
    if weight == Weight::NONE {
        return 0;
    }
    let share = u32::from(weight.percent());
    let replicas = match (load.planned, per_replica) {
        (Some(planned), Some(each)) if each > 0.0 && planned.is_finite() => {
            let exact = f64::from(share) / 100.0 * planned / each;
            // What is a whole number but for rounding is not rounded up.
            (exact - 1e-9).ceil().clamp(0.0, f64::from(u32::MAX)) as u32
        }
        _ => share.saturating_mul(load.replicas).div_ceil(100),
    };
    replicas.max(1)
}

/// The largest share that so many ready replicas can take.
#[must_use]
pub fn affordable(ready: u32, load: &Load, per_replica: Option<f64>) -> Weight {
    (0..=100)
        .rev()
        .filter_map(Weight::new)
        .find(|weight| needed(*weight, load, per_replica) <= ready)
        .unwrap_or(Weight::NONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_needs_this_many_replicas() {
        let cases = [
            // per cent, planned, replicas, per replica, needed
            (5, None, 4, None, 1),
            (50, None, 4, None, 2),
            (50, None, 3, None, 2),
            (51, None, 4, None, 3),
            (100, None, 4, None, 4),
            (100, None, 0, None, 1),
            (0, None, 4, None, 0),
            (50, Some(100.0), 4, Some(25.0), 2),
            (50, Some(101.0), 4, Some(25.0), 3),
            (5, Some(100.0), 4, Some(25.0), 1),
            (100, Some(0.0), 4, Some(25.0), 1),
            (50, Some(100.0), 4, None, 2),
            (50, None, 4, Some(25.0), 2),
            (50, Some(100.0), 4, Some(0.0), 2),
            (30, Some(100.0), 4, Some(10.0), 3),
        ];
        for (percent, planned, replicas, each, expected) in cases {
            let load = Load { planned, replicas };
            let weight = Weight::new(percent).expect("in range");
            assert_eq!(
                needed(weight, &load, each),
                expected,
                "{percent} % of {load:?}, {each:?} each"
            );
        }
    }

    #[test]
    fn ready_replicas_can_take_this_share() {
        let unknown = Load {
            planned: None,
            replicas: 4,
        };
        let shares = [0, 1, 2, 3, 4, 9].map(|n| affordable(n, &unknown, None).percent());
        assert_eq!(shares, [0, 25, 50, 75, 100, 100]);
        let known = Load {
            planned: Some(100.0),
            replicas: 4,
        };
        assert_eq!(affordable(3, &known, Some(10.0)).percent(), 30);
        assert_eq!(affordable(0, &known, Some(10.0)).percent(), 0);
    }
}
