//! ONNX Runtime: where its library lies, which provider a session gets, why a model is refused.
//!
//! Inputs: options, the file. Outputs: an environment, sessions, or a `Failure` with its documented reason.

use std::path::{Path, PathBuf};

use ort::{
    ErrorCode, LoadDynamicError,
    environment::Environment,
    session::{
        Session,
        builder::{GraphOptimizationLevel, SessionBuilder},
    },
};
use ortolan_model::{
    failure::{Failure, Reason},
    settings::Optimization,
};

use crate::{
    onnx::{self, NotOnnx, Outline},
    options::{Fallback, Provider},
    signature,
};

pub mod graphs;
mod provider;

/// ONNX Runtime's releases are numbered 1.MINOR; this is the oldest whose API is spoken here.
pub const OLDEST_RUNTIME: u32 = ort::MINOR_VERSION;
const LIBRARY: &str = "libonnxruntime.so";

/// Loads ONNX Runtime's library and starts it, once per process.
pub fn start(library: Option<&Path>) -> Result<(Environment, PathBuf), Failure> {
    let path = match library {
        Some(path) => path.to_path_buf(),
        None => find_library().map_err(|message| Failure::new(Reason::RuntimeMissing, message))?,
    };
    let missing = |why: &dyn std::fmt::Display| {
        Failure::new(
            Reason::RuntimeMissing,
            format!(
                "cannot load ONNX Runtime from {}: {why}; version 1.{OLDEST_RUNTIME} or newer is needed",
                path.display()
            ),
        )
    };
    if !path.is_file() {
        return Err(missing(&"there is no such file"));
    }
    let environment = ort::init_from(&path)
        .map_err(|error| match &error {
            LoadDynamicError::BadVersion { version_str, .. } => too_old(&path, version_str),
            error => missing(error),
        })?
        .with_telemetry(false)
        .build()
        .map_err(|error| missing(&error))?;
    Ok((environment, path))
}

fn too_old(path: &Path, version: &str) -> Failure {
    Failure::new(
        Reason::RuntimeMissing,
        format!(
            "the library {} is ONNX Runtime {version}, and version 1.{OLDEST_RUNTIME} or newer is needed: take a newer build \
             of it; a provider that only comes with an older one cannot be used, unless as a plugin (--provider-library)",
            path.display()
        ),
    )
}

/// Beside the binary, in `../lib` and in `/opt/ortolan/lib`.
fn searched() -> Vec<PathBuf> {
    let mut places = Vec::new();
    if let Some(beside) = std::env::current_exe()
        .ok()
        .as_deref()
        .and_then(Path::parent)
    {
        places.push(beside.to_path_buf());
        places.extend(beside.parent().map(|up| up.join("lib")));
    }
    places.push(PathBuf::from("/opt/ortolan/lib"));
    places
}

/// The library in one of the places that are searched, or the newest in the cache.
fn find_library() -> Result<PathBuf, String> {
    let mut places = searched();
    let cache = cache_root().map(|root| root.join("onnxruntime"));
    let found = places
        .iter()
        .map(|place| place.join(LIBRARY))
        .find(|library| library.is_file())
        .or_else(|| newest_in(cache.as_deref()?, LIBRARY));
    found.ok_or_else(|| {
        places.extend(cache.map(|cache| cache.join("*")));
        let searched: Vec<_> = places
            .iter()
            .map(|place| place.display().to_string())
            .collect();
        format!(
            "ONNX Runtime's library {LIBRARY} is in none of {}; \
             name it with --onnxruntime PATH (scripts/onnxruntime.sh fetches it)",
            searched.join(", ")
        )
    })
}

/// `FOLDER/VERSION/LIBRARY` of the highest version.
fn newest_in(cache: &Path, library: &str) -> Option<PathBuf> {
    let versions = std::fs::read_dir(cache).ok()?.flatten();
    let number = |path: &Path| -> Vec<u32> {
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        name.unwrap_or_default()
            .split('.')
            .map(|part| part.parse().unwrap_or(0))
            .collect()
    };
    versions
        .map(|entry| entry.path())
        .filter(|dir| dir.join(library).is_file())
        .max_by_key(|dir| number(dir))
        .map(|dir| dir.join(library))
}

/// Where downloads go: the folder that was named, else one of ours in the user's cache directory.
pub fn downloads(named: Option<&Path>) -> Result<PathBuf, Failure> {
    let folder = named.map(Path::to_path_buf);
    folder
        .or_else(|| cache_root().map(|root| root.join("server")))
        .ok_or_else(|| {
            Failure::new(
                Reason::InvalidConfig,
                "there is no directory for downloads: HOME is not set; name one with --cache-dir DIR",
            )
        })
}

/// `$ORTOLAN_CACHE`, else `ortolan` in the user's cache directory.
#[must_use]
pub fn cache_root() -> Option<PathBuf> {
    let variable = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    variable("ORTOLAN_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("ortolan")))
        .or_else(|| variable("HOME").map(|home| home.join(".cache/ortolan")))
}

/// How sessions are made.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Threads inside a session.
    pub threads: usize,
    /// The provider that was asked for.
    pub provider: Provider,
    /// The library of a provider that is a plugin, where one was named.
    pub plugin: Option<PathBuf>,
    /// What to do without it.
    pub fallback: Fallback,
    /// How far the graph is optimised.
    pub optimization: Optimization,
    /// Where the optimised graph comes from or goes to.
    pub graph: Graph,
}

/// What a session does about the optimised graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Graph {
    /// Makes it and keeps nothing.
    Make,
    /// Makes it and writes it to this file; where that fails the session has it all the same.
    Write(PathBuf),
    /// Loads this file, which was optimised before.
    Kept(PathBuf),
}

/// A session and the provider that it really got.
#[derive(Debug)]
pub struct Loaded {
    /// Ready to run.
    pub session: Session,
    /// `CPU` after an allowed fallback.
    pub active: Provider,
}

/// Reads a file's outline and refuses what ONNX Runtime would refuse, or could run but not serve.
pub fn inspect(model: &Path) -> Result<Outline, Failure> {
    let outline = onnx::outline(model).map_err(|error| {
        let reason = match &error {
            NotOnnx::Io(io) if io.kind() == std::io::ErrorKind::PermissionDenied => {
                Reason::AccessDenied
            }
            NotOnnx::Io(io) if io.kind() == std::io::ErrorKind::NotFound => Reason::ModelNotFound,
            NotOnnx::Io(_) => Reason::Internal,
            _ => Reason::InvalidModel,
        };
        Failure::new(reason, format!("{} {error}", file_name(model)))
    })?;
    if let Some((name, kind)) = outline.odd_outputs.first() {
        let message = signature::not_a_tensor("output", name, kind);
        return Err(Failure::new(
            Reason::InvalidModel,
            format!("{}: {message}", file_name(model)),
        ));
    }
    Ok(outline)
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or(path.as_os_str())
        .to_string_lossy()
        .into_owned()
}

/// Makes one session.
pub fn load(
    environment: &Environment,
    model: &Path,
    outline: &Outline,
    recipe: &Recipe,
) -> Result<Loaded, Failure> {
    let provider = recipe.provider;
    let unavailable = match build(environment, model, recipe) {
        Ok(session) => {
            return Ok(Loaded {
                session,
                active: provider,
            });
        }
        Err(Unbuilt::Model(error)) if provider == Provider::CPU || is_of_the_model(&error) => {
            return Err(refusal(model, outline, error.message()));
        }
        Err(Unbuilt::Model(error)) => provider::why(provider, error.message()),
        Err(Unbuilt::Provider(words)) => words,
    };
    if recipe.fallback == Fallback::Fail {
        return Err(Failure::new(
            Reason::ProviderUnavailable,
            format!(
                "the execution provider {} does not load: {unavailable}; use the image that brings it, \
                 or allow the CPU with --fallback allow",
                provider.as_str()
            ),
        ));
    }
    tracing::warn!(
        "{} does not load, serving on the CPU: {unavailable}",
        provider.as_str()
    );
    let recipe = Recipe {
        provider: Provider::CPU,
        ..recipe.clone()
    };
    load(environment, model, outline, &recipe)
}

/// Why there is no session.
enum Unbuilt {
    Provider(String),
    Model(ort::Error),
}

impl From<ort::Error> for Unbuilt {
    fn from(error: ort::Error) -> Self {
        Self::Model(error)
    }
}

impl From<ort::Error<SessionBuilder>> for Unbuilt {
    fn from(error: ort::Error<SessionBuilder>) -> Self {
        Self::Model(error.into())
    }
}

/// Whether it is the file that is wrong, whatever it was to run on.
fn is_of_the_model(error: &ort::Error) -> bool {
    let codes = [ErrorCode::InvalidProtobuf, ErrorCode::InvalidGraph];
    codes.contains(&error.code()) || newest_opset(error.message()).is_some()
}

fn build(environment: &Environment, model: &Path, recipe: &Recipe) -> Result<Session, Unbuilt> {
    let prepared = || -> Result<_, Unbuilt> {
        let optimization = match recipe.graph {
            Graph::Kept(_) => Optimization::Off,
            Graph::Make | Graph::Write(_) => recipe.optimization,
        };
        let builder = Session::builder(environment)?
            .with_optimization_level(level(optimization))?
            .with_intra_threads(recipe.threads)?
            // Sessions share the cores: a thread that spins while it waits takes them from its sisters.
            .with_intra_op_spinning(false)?;
        provider::attach(builder, environment, recipe).map_err(Unbuilt::Provider)
    };
    match &recipe.graph {
        Graph::Make => Ok(prepared()?.commit_from_file(model)?),
        Graph::Kept(graph) => Ok(prepared()?.commit_from_file(graph)?),
        Graph::Write(graph) => {
            let written = prepared()?
                .with_optimized_model_path(graph)?
                .commit_from_file(model);
            match written {
                Ok(session) => Ok(session),
                // Perhaps it cannot be written, perhaps the model cannot be loaded: without writing that shows.
                Err(error) => {
                    tracing::debug!("no optimised graph in {}: {error}", graph.display());
                    Ok(prepared()?.commit_from_file(model)?)
                }
            }
        }
    }
}

fn level(optimization: Optimization) -> GraphOptimizationLevel {
    match optimization {
        Optimization::Off => GraphOptimizationLevel::Disable,
        Optimization::Basic => GraphOptimizationLevel::Level1,
        Optimization::Extended => GraphOptimizationLevel::Level2,
        Optimization::All => GraphOptimizationLevel::All,
    }
}

/// Why ONNX Runtime refused a file, said from what the file's outline and the runtime's words show.
pub(crate) fn refusal(model: &Path, outline: &Outline, words: &str) -> Failure {
    let name = file_name(model);
    let custom: Vec<String> = outline
        .custom_operators()
        .map(|(domain, operator)| format!("{domain}.{operator}"))
        .collect();
    let message = if let Some(newest) = newest_opset(words) {
        format!(
            "{name} needs operator set {} of ONNX, and ONNX Runtime 1.{} knows sets up to {newest}; \
             export it with opset_version={newest} or lower, or use a newer server",
            outline.opset(),
            runtime_minor(),
        )
    } else if !custom.is_empty() {
        format!(
            "{name} uses the custom operator{} {}, which ONNX Runtime does not bring along; \
             export the model with ONNX's own operators",
            if custom.len() == 1 { "" } else { "s" },
            custom.join(", "),
        )
    } else {
        format!(
            "ONNX Runtime cannot load {name} (format {}, operator set {}): {words}",
            outline.ir_version,
            outline.opset()
        )
    };
    Failure::new(Reason::InvalidModel, message)
}

/// "… Opset 99 is under development … Current official support for domain ai.onnx is till opset 26."
fn newest_opset(words: &str) -> Option<i64> {
    let (_, rest) = words.split_once("till opset ")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

fn runtime_minor() -> u32 {
    // "ORT Build Info: git-branch=rel-1.31.1, …" names it exactly; the API's version is the floor.
    let branch = ort::info().split_once("rel-1.").map(|(_, rest)| rest);
    branch
        .and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next())
        .and_then(|minor| minor.parse().ok())
        .unwrap_or(OLDEST_RUNTIME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_in_the_cache_is_taken_by_number_not_by_letter() {
        let cache = tempfile::tempdir().unwrap();
        for version in ["1.9.0", "1.31.1", "1.4.2"] {
            std::fs::create_dir(cache.path().join(version)).unwrap();
            std::fs::write(cache.path().join(version).join(LIBRARY), "").unwrap();
        }
        std::fs::create_dir(cache.path().join("1.99.0")).unwrap();
        assert_eq!(
            newest_in(cache.path(), LIBRARY),
            Some(cache.path().join("1.31.1").join(LIBRARY))
        );
    }

    #[test]
    fn a_library_that_is_too_old_is_named_with_its_version_and_the_one_needed() {
        let failure = too_old(Path::new("/x/libonnxruntime.so"), "1.24.1");
        assert_eq!(failure.reason, Reason::RuntimeMissing);
        for part in ["/x/libonnxruntime.so", "1.24.1", "1.31 or newer"] {
            assert!(failure.message.contains(part), "{failure}");
        }
    }

    #[test]
    fn an_opset_that_is_too_new_and_a_custom_operator_are_told_apart() {
        let mut outline = Outline::default();
        outline.opsets.insert(String::new(), 99);
        let words = "Opset 99 is under development. Current official support for domain ai.onnx is till opset 26.";
        assert_eq!(newest_opset(words), Some(26));
        outline
            .foreign_operators
            .insert(("acme".into(), "Fancy".into()));
        let failure = refusal(
            Path::new("/x/m.onnx"),
            &Outline {
                opsets: Default::default(),
                ..outline
            },
            "no",
        );
        assert!(
            failure.message.contains("custom operator acme.Fancy"),
            "{failure}"
        );
    }
}
