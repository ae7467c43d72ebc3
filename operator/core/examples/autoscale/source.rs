//! How requests come: a rate that follows a shape, and chance.

use std::f64::consts::TAU;

/// Requests of the trace, by the second (see README.md).
const AZURE: &str = include_str!("azure_llm_2023_conv.csv");
/// Over which the trace's rate is taken, in seconds. Shorter, and multiplying it would multiply chance as well.
const SMOOTH: usize = 10;

/// The shape of the rate, in requests a second; every scenario begins with [`WARM_UP`] of the first rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Source {
    Constant(f64),
    /// From one rate to another.
    Step {
        from: f64,
        to: f64,
    },
    /// Up and down again within so many seconds.
    Ramp {
        from: f64,
        to: f64,
        seconds: f64,
    },
    Sine {
        mean: f64,
        swing: f64,
        period: f64,
    },
    /// So many seconds of each.
    OnOff {
        on: f64,
        off: f64,
        seconds: f64,
    },
    /// Once, for so many seconds.
    Pulse {
        base: f64,
        to: f64,
        seconds: f64,
    },
    /// Arrivals of the trace, times this.
    Azure {
        times: f64,
    },
}

/// Before what is looked at, in seconds: long enough for every rule to have settled.
pub const WARM_UP: f64 = 400.0;
/// From the end of the warm-up to a step, and to a pulse, in seconds.
const STEP_AFTER: f64 = 600.0;
const PULSE_AFTER: f64 = 60.0;

impl Source {
    /// The rate so many seconds after the beginning.
    pub fn rate(&self, second: f64) -> f64 {
        let t = (second - WARM_UP).max(0.0);
        match *self {
            Self::Constant(rate) => rate,
            Self::Step { from, to } => match t < STEP_AFTER {
                true => from,
                false => to,
            },
            Self::Ramp { from, to, seconds } => {
                let part = (t / seconds).fract();
                from + (to - from) * (1.0 - (2.0 * part - 1.0).abs())
            }
            Self::Sine {
                mean,
                swing,
                period,
            } => mean - swing * (TAU * t / period).cos(),
            Self::OnOff { on, off, seconds } => match (t / seconds) as u64 % 2 {
                0 => off,
                _ => on,
            },
            Self::Pulse { base, to, seconds } => {
                match (PULSE_AFTER..PULSE_AFTER + seconds).contains(&t) {
                    true => to,
                    false => base,
                }
            }
            Self::Azure { times } => times * azure(t),
        }
    }

    /// When the rate changes, where it does so once.
    pub fn change(&self) -> Option<f64> {
        match self {
            Self::Step { .. } => Some(WARM_UP + STEP_AFTER),
            Self::Pulse { .. } => Some(WARM_UP + PULSE_AFTER),
            _ => None,
        }
    }

    /// The most within some seconds.
    pub fn most(&self, from: f64, until: f64) -> f64 {
        let steps = (until - from).ceil() as u32;
        (0..=steps)
            .map(|step| self.rate(from + f64::from(step)))
            .fold(0.0, f64::max)
    }
}

fn azure(second: f64) -> f64 {
    thread_local! {
        static RATES: Vec<f64> = {
            let counts: Vec<f64> = AZURE.lines().filter_map(|line| line.parse().ok()).collect();
            counts.chunks_exact(SMOOTH).map(|some| some.iter().sum::<f64>() / SMOOTH as f64).collect()
        };
    }
    RATES.with(|rates| {
        let at = (second / SMOOTH as f64) as usize % rates.len();
        rates.get(at).copied().unwrap_or(0.0)
    })
}
