//! Triton's `config.pbtxt`: the part of it that this server acts on, and notes about the rest.
//!
//! Input: the text. Output: a [`Config`], or a [`Failure`] that names the line. A field that is known
//! and not acted on, or not known at all, is a note: it is told once and the model is served. What
//! would change the answers if it were left out (an ensemble, sequences, reshaped or generated
//! tensors, more than one answer to a request) is refused.

mod fields;
mod sections;
mod text;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use self::fields::{Fields, Wrong};
use crate::{
    config,
    failure::{Failure, Reason},
    settings::{Declared, Settings},
};

/// The file's name, in a model's folder.
pub(crate) const FILE: &str = "config.pbtxt";

/// What a `config.pbtxt` says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Config {
    /// Must be the folder's name where it is given.
    pub(crate) name: Option<String>,
    pub(crate) versions: VersionPolicy,
    /// In the place of `model.onnx`.
    pub(crate) model_filename: Option<String>,
    /// Output → the file of its labels, in the model's folder.
    pub(crate) label_files: BTreeMap<String, String>,
    pub(crate) settings: Settings,
    /// What was not acted on, each with its line.
    pub(crate) notes: Vec<String>,
}

/// Which versions are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum VersionPolicy {
    /// The highest so many numbers.
    Latest(usize),
    All,
    Specific(BTreeSet<u64>),
}

impl Default for VersionPolicy {
    fn default() -> Self {
        Self::Latest(1)
    }
}

impl VersionPolicy {
    /// Of `versions`, those that are served.
    pub(crate) fn choose(&self, versions: &BTreeSet<u64>) -> BTreeSet<u64> {
        match self {
            Self::Latest(count) => versions.iter().rev().take(*count).copied().collect(),
            Self::All => versions.clone(),
            Self::Specific(wanted) => versions.intersection(wanted).copied().collect(),
        }
    }
}

/// Reads a `config.pbtxt` and the labels that lie beside it. Links must not lead out of `root`. Blocking.
pub(crate) fn load(file: &Path, root: Option<&Path>) -> Result<Config, Failure> {
    let folder = file.parent().unwrap_or(Path::new("."));
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let shown = format!("{name}/{FILE}");
    let text = config::read_text(file, config::MAX_CONFIG_BYTES, &name)?;
    let mut config = parse(&shown, &text)?;
    for (output, labels) in &config.label_files {
        let labels = config::labels_beside(folder, labels, &shown, root)?;
        config.settings.labels.insert(output.clone(), labels);
    }
    Ok(config)
}

/// What a `config.pbtxt` says of how its model is run, and notes about what is not acted on; `shown` is its path in
/// sentences. The files that it names are not looked at.
///
/// # Errors
/// [`Reason::InvalidConfig`], with the line.
pub fn config_pbtxt(shown: &str, text: &str) -> Result<(Settings, Vec<String>), Failure> {
    let config = parse(shown, text)?;
    Ok((config.settings, config.notes))
}

/// Reads a whole `config.pbtxt`; `shown` is its path in sentences.
pub(crate) fn parse(shown: &str, text: &str) -> Result<Config, Failure> {
    let wrong = |what: &str| Failure::new(Reason::InvalidConfig, format!("{shown}: {what}"));
    let message = text::parse(text).map_err(|error| wrong(&error.to_string()))?;
    read(Fields::of(&message)).map_err(|Wrong(what)| wrong(&what))
}

fn read(mut file: Fields<'_>) -> Result<Config, Wrong> {
    refuse_what_changes_answers(&mut file)?;
    let mut config = Config::default();
    let notes = &mut config.notes;
    let settings = &mut config.settings;
    config.name = file
        .one("name")?
        .map(|item| item.text().map(str::to_owned))
        .transpose()?
        .filter(|name| !name.is_empty());
    config.model_filename = file
        .one("default_model_filename")?
        .map(|item| sections::file_name(&item))
        .transpose()?;
    if let Some(policy) = file.one("version_policy")? {
        config.versions = sections::version_policy(&policy, notes)?;
    }
    sections::batching(&mut file, settings, notes)?;
    if let Some(optimization) = file.one("optimization")? {
        sections::optimization(&optimization, settings, notes)?;
    }
    sections::instance_groups(&file.all("instance_group"), settings, notes)?;
    for parameter in file.all("parameters") {
        sections::parameter(&parameter, settings, notes)?;
    }
    let batch = batch_dimension(settings);
    for input in file.all("input") {
        let (declared, _) = sections::tensor(&input, batch, notes)?;
        settings.inputs.push(declared);
    }
    for output in file.all("output") {
        let (declared, labels) = sections::tensor(&output, batch, notes)?;
        if let Some(labels) = labels {
            config.label_files.insert(declared.name.clone(), labels);
        }
        settings.outputs.push(declared);
    }
    for (what, tensors) in [("input", &settings.inputs), ("output", &settings.outputs)] {
        refuse_twins(what, tensors)?;
    }
    for sample in file.all("model_warmup") {
        settings
            .warm_up
            .push(sections::warm_up(&sample, batch.is_some(), notes)?);
    }
    if settings.warm_up.len() > 1 {
        notes.push("of model_warmup only the first sample is used".to_owned());
    }
    if let Some(cache) = file.one("response_cache")? {
        settings.cache = sections::response_cache(&cache, notes)?;
    }
    file.unused(
        &[
            "runtime",
            "cc_model_filenames",
            "metric_tags",
            "model_operations",
            "model_repository_agents",
            "model_metrics",
        ],
        notes,
    );
    file.done(notes);
    Ok(config)
}

/// The free dimension that `max_batch_size` puts before the shapes that the file writes.
fn batch_dimension(settings: &Settings) -> Option<i64> {
    settings.batching.max.map(|_| -1)
}

fn refuse_twins(what: &str, tensors: &[Declared]) -> Result<(), Wrong> {
    let mut names = BTreeSet::new();
    match tensors.iter().find(|tensor| !names.insert(&tensor.name)) {
        Some(twin) => Err(Wrong(format!(
            "the {what} {:?} is declared twice",
            twin.name
        ))),
        None => Ok(()),
    }
}

/// Backends, ensembles, sequences, decoupled answers, generated tensors.
fn refuse_what_changes_answers(file: &mut Fields<'_>) -> Result<(), Wrong> {
    for (field, ours) in [("platform", "onnxruntime_onnx"), ("backend", "onnxruntime")] {
        let Some(item) = file.one(field)? else {
            continue;
        };
        match item.text()? {
            "" => {}
            text if text == ours => {}
            "ensemble" => return Err(item.wrong(ENSEMBLE)),
            other => {
                return Err(item.wrong(&format!(
                    "is {other:?}, and only ONNX models are served here: export the model to ONNX and \
                     write {field}: {ours:?}"
                )));
            }
        }
    }
    let refused = [
        ("ensemble_scheduling", ENSEMBLE),
        (
            "sequence_batching",
            "keeps state between requests, which this server does not: give the state to the model \
             as inputs and outputs that the client sends back",
        ),
        (
            "batch_input",
            "adds inputs that the server would have to make, which this server does not",
        ),
        (
            "batch_output",
            "splits outputs by rules of its own, which this server does not",
        ),
    ];
    for (name, why) in refused {
        if let Some(item) = file.all(name).first() {
            return Err(item.wrong(why));
        }
    }
    let Some(policy) = file.one("model_transaction_policy")? else {
        return Ok(());
    };
    match policy.message()?.one("decoupled")? {
        Some(item) if item.bool()? => {
            Err(item
                .wrong("is true: an ONNX model gives one answer to a request; leave the field out"))
        }
        _ => Ok(()),
    }
}

const ENSEMBLE: &str = "makes an ensemble of several models, which this server does not run: serve its models and let \
     the client, or one ONNX graph, call them in turn";

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
