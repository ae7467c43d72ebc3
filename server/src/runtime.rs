//! ONNX Runtime: where its library lies, which provider a session gets, why a model is refused.
//!
//! Inputs: options, the file. Outputs: an environment, sessions, or a `Failure` with its documented reason.

use std::path::{Path, PathBuf};

use ort::{
    environment::Environment,
    ep::{self, ExecutionProvider, ExecutionProviderDispatch},
    session::{Session, builder::GraphOptimizationLevel},
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
        .map_err(|error| missing(&error))?
        .with_telemetry(false)
        .build()
        .map_err(|error| missing(&error))?;
    Ok((environment, path))
}

/// The library beside the binary, in `../lib`, in `/opt/ortolan/lib`, or the newest in the cache.
fn find_library() -> Result<PathBuf, String> {
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
    let cache = cache_root().map(|root| root.join("onnxruntime"));
    let found = places
        .iter()
        .map(|place| place.join(LIBRARY))
        .find(|library| library.is_file())
        .or_else(|| cache.as_deref().and_then(newest_in));
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

/// `CACHE/onnxruntime/VERSION/libonnxruntime.so` of the highest version.
fn newest_in(cache: &Path) -> Option<PathBuf> {
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
        .filter(|dir| dir.join(LIBRARY).is_file())
        .max_by_key(|dir| number(dir))
        .map(|dir| dir.join(LIBRARY))
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
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    /// Threads inside a session.
    pub threads: usize,
    /// The provider that was asked for.
    pub provider: Provider,
    /// What to do without it.
    pub fallback: Fallback,
    /// How far the graph is optimised.
    pub optimization: Optimization,
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
    if provider == Provider::CPU {
        let session = build(environment, model, recipe, None)
            .map_err(|error| refusal(model, outline, error.message()))?;
        return Ok(Loaded {
            session,
            active: Provider::CPU,
        });
    }
    let unavailable = match available(provider) {
        Ok(true) => match build(environment, model, recipe, Some(dispatch(provider))) {
            Ok(session) => {
                return Ok(Loaded {
                    session,
                    active: provider,
                });
            }
            Err(error) => error.message().to_owned(),
        },
        Ok(false) => "this ONNX Runtime library was built without it".to_owned(),
        Err(error) => error.message().to_owned(),
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
        ..*recipe
    };
    load(environment, model, outline, &recipe)
}

fn build(
    environment: &Environment,
    model: &Path,
    recipe: &Recipe,
    provider: Option<ExecutionProviderDispatch>,
) -> ort::Result<Session> {
    let mut builder = Session::builder(environment)?
        .with_optimization_level(level(recipe.optimization))?
        .with_intra_threads(recipe.threads)?
        // Sessions share the cores: a thread that spins while it waits takes them from its sisters.
        .with_intra_op_spinning(false)?;
    if let Some(provider) = provider {
        builder = builder.with_execution_providers([provider.error_on_failure()])?;
    }
    builder.commit_from_file(model)
}

fn level(optimization: Optimization) -> GraphOptimizationLevel {
    match optimization {
        Optimization::Off => GraphOptimizationLevel::Disable,
        Optimization::Basic => GraphOptimizationLevel::Level1,
        Optimization::Extended => GraphOptimizationLevel::Level2,
        Optimization::All => GraphOptimizationLevel::All,
    }
}

fn dispatch(provider: Provider) -> ExecutionProviderDispatch {
    match provider {
        Provider::CPU => ep::CPU::default().build(),
        Provider::CUDA => ep::CUDA::default().build(),
        Provider::TensorRT => ep::TensorRT::default().build(),
        Provider::OpenVINO => ep::OpenVINO::default().build(),
        Provider::ROCm => ep::ROCm::default().build(),
    }
}

fn available(provider: Provider) -> ort::Result<bool> {
    match provider {
        Provider::CPU => Ok(true),
        Provider::CUDA => ep::CUDA::is_available(),
        Provider::TensorRT => ep::TensorRT::is_available(),
        Provider::OpenVINO => ep::OpenVINO::is_available(),
        Provider::ROCm => ep::ROCm::is_available(),
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
            newest_in(cache.path()),
            Some(cache.path().join("1.31.1").join(LIBRARY))
        );
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
