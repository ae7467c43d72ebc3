//! `ortolan-server tune`: which sessions, threads and batch size a model runs best with, measured on this machine.
//!
//! Every setting is loaded as the server would load it and driven through the server's own engine, without a network:
//! requests of one row each, always two batches for each session under way, so that one runs while the next gathers.
//! What is told is therefore the throughput at saturation, and the latency that a request has there.

use std::time::{Duration, Instant};

use clap::Args;
use ortolan_model::Package;

use super::{Refusal, inputs::InputOptions, source::Source};
use crate::{cpu, options::parse_duration, runtime};

pub mod choose;
pub mod grid;
mod measure;
mod render;

use choose::{Cell, Slo};
use grid::{Layout, Numbers};

/// `ortolan-server tune`
#[derive(Clone, Debug, Args)]
pub struct Options {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub source: Source,

    /// The latency that must be kept, as p95=50ms. Settings that miss it are not advised.
    #[arg(long, value_name = "GOAL")]
    pub slo: Option<Slo>,

    /// Sessions to try, as 1,2,4 [default: up to the CPUs of this container].
    #[arg(long, value_name = "N,N")]
    pub sessions: Option<Numbers>,

    /// Threads inside a session to try [default: 1, 2, 4 … up to the CPUs].
    #[arg(long, value_name = "N,N")]
    pub threads: Option<Numbers>,

    /// Batch sizes to try [default: 1, 2, 4 … 32 when the model takes batches].
    #[arg(long, value_name = "N,N")]
    pub batch: Option<Numbers>,

    /// How long one round of one setting takes.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    pub time: Duration,

    /// Rounds of each setting; their median counts, their spread shows the noise.
    #[arg(long, value_name = "N", default_value = "5", value_parser = clap::value_parser!(u16).range(1..=100))]
    pub rounds: u16,

    /// End a round after so many requests, however long that takes.
    #[arg(long, value_name = "N", conflicts_with = "time", value_parser = clap::value_parser!(u64).range(1..))]
    pub requests: Option<u64>,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub inputs: InputOptions,

    /// Write JSON.
    #[arg(long)]
    pub json: bool,
}

/// Batch sizes that are tried unasked.
const MAX_BATCH: usize = 32;
/// The quantile that is told when there is no goal.
const QUANTILE: f64 = 0.95;
/// A larger batch cannot keep a goal that this one misses so clearly.
const HOPELESS: u32 = 4;
/// Nobody waits longer for one batch.
const TOO_LONG: Duration = Duration::from_secs(10);

/// What was found.
struct Report {
    package: Package,
    uri: String,
    cpus: usize,
    batchable: bool,
    /// What the server does about batches unasked.
    reason: String,
    inputs: String,
    quantile: f64,
    slo: Option<Slo>,
    cells: Vec<Cell>,
    /// Settings that were left out, and why.
    left_out: Vec<String>,
    /// How much the first setting had changed when it was measured again at the end.
    drift: f64,
}

/// Measures and gives the report.
pub fn run(options: &Options) -> Result<String, Refusal> {
    if options.time.is_zero() {
        return Err(Refusal::Data("--time must be longer than 0".to_owned()));
    }
    let package = options.source.obtain()?;
    let (environment, _) = runtime::start(options.source.access.onnxruntime.as_deref())?;
    let bench = measure::Bench::new(environment, package.clone(), options)?;
    let cpus = cpu::available().get();
    let layouts = grid::layouts(cpus, options.sessions.as_ref(), options.threads.as_ref());
    let batches = grid::batches(bench.is_batchable(), options.batch.as_ref(), MAX_BATCH);
    say_how_long(options, layouts.len() * batches.len() + 1);
    let (mut cells, mut left_out) = (Vec::new(), Vec::new());
    for layout in &layouts {
        ladder(
            &bench,
            options,
            *layout,
            &batches,
            &mut cells,
            &mut left_out,
        )?;
    }
    let drift = drift(&bench, &cells)?;
    let report = Report {
        package,
        uri: options.source.uri.clone(),
        cpus,
        batchable: bench.is_batchable(),
        reason: bench.reason().to_owned(),
        inputs: bench.inputs().to_owned(),
        quantile: bench.quantile(),
        slo: options.slo,
        cells,
        left_out,
        drift,
    };
    Ok(if options.json {
        format!("{:#}", render::json(&report))
    } else {
        render::text(&report)
    })
}

fn say_how_long(options: &Options, cells: usize) {
    if options.requests.is_none() {
        let seconds = options.time.as_secs_f64() * f64::from(options.rounds) * cells as f64;
        eprintln!(
            "{cells} settings, {} rounds of {:?} each: about {:.0} s and the loading",
            options.rounds, options.time, seconds
        );
    }
}

/// One layout with ever larger batches, until one takes too long or the graph refuses it.
fn ladder(
    bench: &measure::Bench,
    options: &Options,
    layout: Layout,
    batches: &[usize],
    cells: &mut Vec<Cell>,
    left_out: &mut Vec<String>,
) -> Result<(), Refusal> {
    let shown = |batch: usize| {
        format!(
            "{} × {} threads, batch {batch}",
            layout.sessions, layout.threads
        )
    };
    for (at, batch) in batches.iter().enumerate() {
        let start = Instant::now();
        let cell = match bench.measure(layout, *batch) {
            Ok(cell) => cell,
            // One row runs and several do not: the graph promises more than it keeps.
            Err(refusal) if at > 0 => {
                left_out.push(format!("{} and more: {refusal}", shown(*batch)));
                return Ok(());
            }
            Err(refusal) => return Err(refusal),
        };
        eprintln!(
            "{}: {:.0} rows/s ({:.1} s)",
            shown(*batch),
            cell.rows.median,
            start.elapsed().as_secs_f64()
        );
        let limit = options
            .slo
            .map_or(TOO_LONG, |slo| (slo.limit * HOPELESS).min(TOO_LONG));
        let hopeless = cell.tail > limit;
        cells.push(cell);
        if hopeless && at + 1 < batches.len() {
            left_out.push(format!(
                "{} and more: batch {batch} is far too slow already",
                shown(batches[at + 1])
            ));
            return Ok(());
        }
    }
    Ok(())
}

/// The first setting again: what changed meanwhile is not the setting's doing.
fn drift(bench: &measure::Bench, cells: &[Cell]) -> Result<f64, Refusal> {
    let Some(first) = cells.first() else {
        return Ok(0.0);
    };
    let again = bench.measure(first.layout, first.batch)?;
    Ok(again.rows.median / first.rows.median - 1.0)
}
