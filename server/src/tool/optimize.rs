//! `ortolan-server optimize`: ONNX Runtime's own graph optimiser, run once and written to a file.
//!
//! The server optimises a model every time that it loads it; an optimised file saves that time. What was gained is
//! measured, never assumed: load time and memory in fresh processes, the time of a run, the operators, and how far the
//! outputs moved. The file appears under its name when it is whole, or not at all.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use ort::session::builder::GraphOptimizationLevel;
use serde::Serialize;

use super::{Refusal, inputs::InputOptions, internal, source::Source};
use crate::{
    onnx::{
        Outline,
        census::{self, Census},
    },
    runtime,
};

mod compare;
mod difference;
mod render;
mod timing;
mod write;

use compare::Comparison;
use timing::Cost;

/// `ortolan-server optimize`
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub source: Source,

    /// The file to write.
    #[arg(long, short, value_name = "OUT.onnx")]
    pub output: PathBuf,

    /// How far to go: basic keeps to ONNX's operators, extended fuses some into ONNX Runtime's
    /// own, layout and all also arrange data for the processor of this machine.
    #[arg(long, value_enum, default_value = "extended")]
    pub level: Level,

    /// Overwrite the output.
    #[arg(long)]
    pub force: bool,

    /// Write the weights to OUT.onnx.data; without it only models over 1.9 GB are, which do not fit
    /// into one file.
    #[arg(long)]
    pub external_data: bool,

    /// Threads inside a session while it is measured.
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: u16,

    /// How many processes load and run each of both files; their median is told.
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u16).range(1..=100))]
    pub rounds: u16,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub inputs: InputOptions,

    /// Write the report as JSON.
    #[arg(long)]
    pub json: bool,
}

/// ONNX Runtime's levels of optimisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Constants folded, what is redundant left out; ONNX's own operators only.
    Basic,
    /// Also fusions into ONNX Runtime's own operators.
    Extended,
    /// Also layouts that suit this machine's processor.
    Layout,
    /// Everything that this ONNX Runtime can do.
    All,
}

impl Level {
    const fn runtimes(self) -> GraphOptimizationLevel {
        match self {
            Self::Basic => GraphOptimizationLevel::Level1,
            Self::Extended => GraphOptimizationLevel::Level2,
            Self::Layout => GraphOptimizationLevel::Level3,
            Self::All => GraphOptimizationLevel::All,
        }
    }

    /// What the file is tied to, for a warning.
    const fn tied(self) -> Option<&'static str> {
        match self {
            Self::Basic => None,
            Self::Extended => Some(
                "it may use operators of ONNX Runtime's own: load it with this version of ONNX Runtime or a newer one, \
                 and make it again when you upgrade",
            ),
            Self::Layout | Self::All => Some(
                "it is made for this version of ONNX Runtime and for the vector instructions of this machine's \
                 processor: on other machines it may be slower or not load at all; make it where it is served",
            ),
        }
    }
}

/// One of both files.
#[derive(Debug)]
struct Side {
    census: Census,
    /// Of the file and its external data.
    bytes: u64,
    cost: Cost,
}

/// What came of it.
#[derive(Debug)]
struct Report {
    output: PathBuf,
    level: Level,
    runtime: String,
    rounds: u16,
    before: Side,
    after: Side,
    comparison: Comparison,
    warnings: Vec<String>,
}

/// Optimises, compares and gives the report.
pub fn run(options: &Options) -> Result<String, Refusal> {
    let package = options.source.obtain()?;
    let model = &package.model_path;
    let outline = runtime::inspect(model)?;
    let before = census::census(model).map_err(internal)?;
    let place = write::Place::check(options, model, before.parameters.bytes)?;
    let (environment, library) = runtime::start(options.source.access.onnxruntime.as_deref())?;
    eprintln!("optimising {}", model.display());
    let partial = place.open()?;
    write::optimise(&environment, model, &outline, options.level, &partial)?;
    let optimised = &partial.model;
    eprintln!("comparing the outputs");
    let comparison = compare::compare(&environment, model, optimised, &options.inputs)?;
    eprintln!("measuring both files, each in {} processes", options.rounds);
    let costs = timing::measure(options, model, optimised)?;
    let after = census::census(optimised).map_err(internal)?;
    let sizes = (size(model, &before), size(optimised, &after));
    let output = partial.publish()?;
    let mut warnings: Vec<String> = options
        .level
        .tied()
        .map(str::to_owned)
        .into_iter()
        .collect();
    if package.config.pipeline.is_some() {
        warnings.push("its model.yaml and labels are not copied: put them beside it".to_owned());
    }
    let report = Report {
        output,
        level: options.level,
        rounds: options.rounds,
        runtime: library.display().to_string(),
        before: Side {
            census: before,
            bytes: sizes.0,
            cost: costs.0,
        },
        after: Side {
            census: after,
            bytes: sizes.1,
            cost: costs.1,
        },
        comparison,
        warnings,
    };
    Ok(if options.json {
        format!("{:#}", render::json(&report))
    } else {
        render::text(&report)
    })
}

/// The model's bytes on disk, those beside it included.
fn size(model: &Path, census: &Census) -> u64 {
    let length = |path: &Path| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    let dir = model.parent().unwrap_or(Path::new("."));
    let external = census.parameters.external.keys();
    length(model) + external.map(|file| length(&dir.join(file))).sum::<u64>()
}

/// A sentence of the server's for what ONNX Runtime refuses.
fn refused(model: &Path, outline: Option<&Outline>, error: &ort::Error) -> Refusal {
    match outline {
        Some(outline) => runtime::refusal(model, outline, error.message()).into(),
        None => internal(format!("{}: {}", model.display(), error.message())),
    }
}
