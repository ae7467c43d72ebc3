//! The tables, as they stand in `docs/rollouts.md`.

use std::fmt::Write as _;

use super::{
    run::{Cell, by, cell, exposed, rolled_back},
    world::{Fault, Scenario},
};

const RATES: [f64; 4] = [5.0, 20.0, 100.0, 500.0];
const WEIGHTS: [u32; 5] = [1, 5, 10, 25, 50];

/// A candidate that is just as good, looked at for ten minutes.
pub fn base(rate: f64, weight: u32) -> Scenario {
    Scenario {
        rate,
        weight: f64::from(weight) / 100.0,
        errors: 0.01,
        burst: 1,
        worse: 1.0,
        slower: 1.0,
        fault: Fault::None,
        seconds: 600,
    }
}

/// Makes a world of a calm one.
type Change = fn(Scenario) -> Scenario;

/// The worlds in which a healthy candidate is tried.
pub fn worlds() -> Vec<(&'static str, Change)> {
    vec![
        ("independent errors, 0.1 %", |s| Scenario {
            errors: 0.001,
            ..s
        }),
        ("independent errors, 1 %", |s| s),
        ("independent errors, 5 %", |s| Scenario {
            errors: 0.05,
            ..s
        }),
        ("errors 4 in a row, 1 %", |s| Scenario { burst: 4, ..s }),
        ("errors 8 in a row, 1 %", |s| Scenario { burst: 8, ..s }),
        ("errors 16 in a row, 1 %", |s| Scenario { burst: 16, ..s }),
        ("a slow node under the candidate, 30 s", |s| Scenario {
            fault: Fault::SlowNode { seconds: 30 },
            ..s
        }),
        ("an outage of both across a step, 60 s", |s| Scenario {
            fault: Fault::OutageAcrossStep {
                seconds: 60,
                weight: (s.weight * 5.0).min(0.75),
            },
            ..s
        }),
    ]
}

/// False rollbacks, in per cent of the runs.
pub fn healthy(runs: u32) -> String {
    let mut text = String::from(
        "False rollbacks of a healthy candidate within 10 min, % of the runs: ours / Flagger's rule\n\n",
    );
    let _ = write!(text, "| world | requests/s |");
    for weight in WEIGHTS {
        let _ = write!(text, " {weight} % |");
    }
    text.push_str("\n|---|---|---|---|---|---|---|\n");
    let mut most = 0.0_f64;
    for (place, (name, world)) in worlds().into_iter().enumerate() {
        for rate in RATES {
            let _ = write!(text, "| {name} | {rate} |");
            for weight in WEIGHTS {
                let cell = cell(world(base(rate, weight)), runs, 1 + place as u64);
                let ours = rolled_back(&cell.ours);
                most = most.max(ours);
                let _ = write!(text, " {ours:.1} / {:.0} |", rolled_back(&cell.flagger));
            }
            text.push('\n');
        }
    }
    let _ = writeln!(text, "\nThe most of ours: {most:.1} %");
    text
}

/// Candidates that are worse, within 15 min.
pub fn worse(runs: u32) -> String {
    let mut text = String::from(
        "Worse candidates, looked at for 15 min: ours / Flagger's rule; seconds until half and until nine of ten \
         runs were rolled back, and the candidate's errors until then in the middle run\n\n\
         | candidate | requests/s | weight | base rate | caught, % | half, s | nine of ten, s | errors |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for (rate, weight) in [(20.0, 5), (100.0, 5), (100.0, 25), (500.0, 5)] {
        for errors in [0.001, 0.005, 0.01] {
            for (name, times, burst) in [
                ("10 × the errors", 10.0, 1),
                ("10 × the errors, 10 in a row", 10.0, 10),
            ] {
                let scenario = Scenario {
                    errors,
                    burst,
                    worse: times,
                    seconds: 900,
                    ..base(rate, weight)
                };
                row(&mut text, name, scenario, runs);
            }
        }
        for (name, worse, slower) in [
            ("fails always", 1_000.0, 1.0),
            ("3 × the slow requests", 1.0, 3.0),
        ] {
            let scenario = Scenario {
                errors: 0.001,
                worse,
                slower,
                seconds: 900,
                ..base(rate, weight)
            };
            row(&mut text, name, scenario, runs);
        }
    }
    text
}

/// No stable traffic: against the rate of before.
pub fn alone(runs: u32) -> String {
    let mut text = String::from(
        "Without stable traffic (weight 100), against the frozen rate, 15 min: ours / Flagger's rule\n\n\
         | candidate | requests/s | weight | base rate | rolled back, % | half, s | nine of ten, s | errors |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for rate in RATES {
        for errors in [0.001, 0.005, 0.01] {
            for (name, worse, burst) in [
                ("healthy", 1.0, 1),
                ("healthy, 16 in a row", 1.0, 16),
                ("10 × the errors", 10.0, 1),
            ] {
                let scenario = Scenario {
                    errors,
                    burst,
                    worse,
                    seconds: 900,
                    ..base(rate, 100)
                };
                row(&mut text, name, scenario, runs);
            }
        }
    }
    text
}

fn row(text: &mut String, name: &str, scenario: Scenario, runs: u32) {
    let Cell { ours, flagger } = cell(scenario, runs, 100);
    let both =
        |of: &dyn Fn(&[super::run::Outcome]) -> String| format!("{} / {}", of(&ours), of(&flagger));
    let seconds =
        |share: f64| both(&|o| by(o, share).map_or("–".into(), |second| second.to_string()));
    let _ = writeln!(
        text,
        "| {name} | {} | {:.0} % | {:.1} % | {} | {} | {} | {} |",
        scenario.rate,
        100.0 * scenario.weight,
        100.0 * scenario.errors,
        both(&|o| format!("{:.1}", rolled_back(o))),
        seconds(0.5),
        seconds(0.9),
        both(&|o| exposed(o).to_string()),
    );
}
