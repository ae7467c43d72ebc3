//! The scenarios, and the tables as they stand in `docs/autoscaling-simulation.md`.

use std::fmt::Write as _;

use super::{
    run::{ALL, Mean, Name, Outcome, many},
    source::Source,
    world::{Faults, Kind, Scenario},
};

/// Two executions of 15 ms each.
const SLOTS: Kind = Kind::Slots {
    parallel: 2,
    mean: 0.015,
    cv2: 0.25,
};

const fn scenario(name: &'static str, source: Source, seconds: u32) -> Scenario {
    Scenario {
        name,
        source,
        kind: SLOTS,
        start_up: 30.0,
        nodes: u32::MAX,
        faults: Faults {
            lost_scrapes: 0.0,
            resets: 0,
        },
        seconds,
    }
}

const SINE: Source = Source::Sine {
    mean: 250.0,
    swing: 200.0,
    period: 900.0,
};

pub fn scenarios() -> Vec<Scenario> {
    let step = Source::Step {
        from: 50.0,
        to: 500.0,
    };
    vec![
        scenario("constant", Source::Constant(300.0), 3_600),
        scenario("10 × step", step, 1_200),
        Scenario {
            kind: Kind::Batch {
                most: 16,
                alpha: 0.012,
                beta: 0.002,
            },
            ..scenario(
                "10 × step, batching",
                Source::Step {
                    from: 100.0,
                    to: 1_000.0,
                },
                1_200,
            )
        },
        scenario(
            "ramp",
            Source::Ramp {
                from: 50.0,
                to: 600.0,
                seconds: 1_200.0,
            },
            2_400,
        ),
        scenario("sine", SINE, 2_700),
        scenario(
            "on/off",
            Source::OnOff {
                on: 400.0,
                off: 40.0,
                seconds: 60.0,
            },
            1_800,
        ),
        scenario(
            "pulse",
            Source::Pulse {
                base: 60.0,
                to: 400.0,
                seconds: 45.0,
            },
            900,
        ),
        scenario("Azure", Source::Azure { times: 60.0 }, 3_500),
        Scenario {
            faults: Faults {
                lost_scrapes: 0.2,
                resets: 240,
            },
            ..scenario("sine, with faults", SINE, 2_700)
        },
        Scenario {
            nodes: 6,
            ..scenario(
                "ramp, 6 nodes",
                Source::Ramp {
                    from: 50.0,
                    to: 600.0,
                    seconds: 1_200.0,
                },
                1_200,
            )
        },
        Scenario {
            kind: Kind::Slots {
                parallel: 2,
                mean: 0.060,
                cv2: 0.02,
            },
            ..scenario("service over the objective", Source::Constant(100.0), 1_200)
        },
    ]
}

/// A row: the scenario, the rule, and the runs.
pub struct Row {
    pub scenario: Scenario,
    pub name: Name,
    pub runs: Vec<Outcome>,
}

impl Row {
    pub fn mean(&self, of: impl Fn(&Outcome) -> f64) -> Mean {
        Mean::of(&self.runs.iter().map(of).collect::<Vec<_>>()).unwrap_or_default()
    }

    fn optional(&self, of: impl Fn(&Outcome) -> Option<f64>) -> String {
        let some: Vec<f64> = self.runs.iter().filter_map(of).collect();
        Mean::of(&some).map_or("–".into(), |mean| format!("{:.0}", mean.mean))
    }
}

pub fn rows(only: Option<&str>, runs: u64) -> Vec<Row> {
    let all = scenarios().into_iter();
    let some = all.filter(|scenario| only.is_none_or(|name| scenario.name.contains(name)));
    some.flat_map(|scenario| {
        ALL.map(|name| Row {
            scenario,
            name,
            runs: many(scenario, name, runs),
        })
    })
    .collect()
}

pub const HEAD: &str = "| scenario | rule | violations, % | replicas | most | first step, s | recovered, s | reversals/h |\n|---|---|---|---|---|---|---|---|\n";

pub fn table(rows: &[Row]) -> String {
    let mut text = String::from(HEAD);
    for row in rows {
        let violations = row.mean(|run| run.violations);
        let replicas = row.mean(|run| run.replicas);
        let reversals = row.mean(|run| run.reversals);
        let most = row.runs.iter().map(|run| run.most).max().unwrap_or(0);
        let _ = writeln!(
            text,
            "| {} | {} | {:.2} ± {:.2} | {:.2} ± {:.2} | {most} | {} | {} | {:.1} |",
            row.scenario.name,
            row.name.text(),
            violations.mean,
            violations.half,
            replicas.mean,
            replicas.half,
            row.optional(|run| run.detect),
            row.optional(|run| run.recover),
            reversals.mean,
        );
    }
    text
}

/// Who is on the front of violations and replicas, and against whom ours is better on both.
pub fn front(rows: &[Row]) -> String {
    let mut text = String::from(
        "| scenario | better on both axes than | worse on both axes than |\n|---|---|---|\n",
    );
    let point = |row: &Row| {
        (
            row.mean(|r| r.violations).mean,
            row.mean(|r| r.replicas).mean,
        )
    };
    for ours in rows.iter().filter(|row| row.name == Name::Ours) {
        let (violations, replicas) = point(ours);
        let others: Vec<_> = rows
            .iter()
            .filter(|row| row.scenario.name == ours.scenario.name)
            .filter(|row| !matches!(row.name, Name::Ours | Name::Oracle))
            .map(|row| (row.name.text(), point(row)))
            .collect();
        let list = |of: &dyn Fn(f64, f64) -> bool| {
            let some: Vec<_> = others
                .iter()
                .filter(|(_, (v, r))| of(*v, *r))
                .map(|(name, _)| *name)
                .collect();
            match some.is_empty() {
                true => "–".to_owned(),
                false => some.join(", "),
            }
        };
        let _ = writeln!(
            text,
            "| {} | {} | {} |",
            ours.scenario.name,
            list(&|v, r| violations < v && replicas < r),
            list(&|v, r| violations > v && replicas > r),
        );
    }
    text
}
