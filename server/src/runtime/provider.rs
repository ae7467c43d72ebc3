//! Which way an execution provider comes into a session, and why it does not.
//!
//! Inputs: the provider that was asked for, ONNX Runtime's library, a plugin library. Output: a builder with the provider in it, or
//! the reason as half a sentence. Two ways: ONNX Runtime's library was built with the provider (and loads its other half, for
//! instance `libonnxruntime_providers_cuda.so`, from beside itself), or the provider is a plugin, a library with an interface of
//! its own that any newer ONNX Runtime takes. Invariant: a plugin is registered once in a process, at the first session that asks
//! for it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use ort::{
    device::Device,
    environment::Environment,
    ep::{self, ExecutionProvider, ExecutionProviderDispatch},
    memory::DeviceType,
    session::builder::SessionBuilder,
};

use serde_json::json;

use super::{Recipe, cache_root, newest_in, searched};
use crate::options::Provider;

/// OpenVINO's plugin, as its wheel calls it.
const OPENVINO: &str = "libonnxruntime_providers_openvino_plugin.so";

/// The plugins of this process: registered, or why not.
static PLUGINS: Mutex<BTreeMap<PathBuf, Result<(), String>>> = Mutex::new(BTreeMap::new());

/// Puts the recipe's provider into the builder. What it cannot compute runs on the processor.
pub(super) fn attach(
    builder: SessionBuilder,
    environment: &Environment,
    recipe: &Recipe,
) -> Result<SessionBuilder, String> {
    let provider = recipe.provider;
    if provider == Provider::CPU {
        return Ok(builder);
    }
    if recipe.plugin.is_none()
        && is_built_in(provider).map_err(|error| why(provider, error.message()))?
    {
        let dispatch = built_in(provider, recipe.threads).error_on_failure();
        return builder
            .with_execution_providers([dispatch])
            .map_err(|error| why(provider, error.message()));
    }
    let Some(plugin) = recipe.plugin.clone().or_else(|| plugin_of(provider)) else {
        return Err(absent(provider));
    };
    register(environment, &plugin)?;
    let devices = devices(environment, provider);
    if devices.is_empty() {
        return Err(format!("{} offers no device for it here", plugin.display()));
    }
    let options = options(provider, recipe.threads);
    builder
        .with_devices(devices, Some(&options))
        .map_err(|error| why(provider, error.message()))
}

/// ONNX Runtime's name for it.
const fn name(provider: Provider) -> &'static str {
    match provider {
        Provider::CPU => ep::CPU::NAME,
        Provider::CUDA => ep::CUDA::NAME,
        Provider::TensorRT => ep::TensorRT::NAME,
        Provider::OpenVINO => ep::OpenVINO::NAME,
        Provider::XNNPACK => ep::XNNPACK::NAME,
        Provider::ROCm => ep::ROCm::NAME,
    }
}

fn is_built_in(provider: Provider) -> ort::Result<bool> {
    match provider {
        Provider::CPU => Ok(true),
        Provider::CUDA => ep::CUDA::is_available(),
        Provider::TensorRT => ep::TensorRT::is_available(),
        Provider::OpenVINO => ep::OpenVINO::is_available(),
        Provider::XNNPACK => ep::XNNPACK::is_available(),
        Provider::ROCm => ep::ROCm::is_available(),
    }
}

/// Those that compute on the processor have threads of their own: as many as a session is to have.
fn built_in(provider: Provider, threads: usize) -> ExecutionProviderDispatch {
    match provider {
        Provider::CPU => ep::CPU::default().build(),
        Provider::CUDA => ep::CUDA::default().build(),
        Provider::TensorRT => ep::TensorRT::default().build(),
        Provider::OpenVINO => ep::OpenVINO::default()
            .with_device_type("CPU")
            .with_num_threads(threads)
            .with_precision("FP32")
            .build(),
        Provider::XNNPACK => {
            let threads = threads.try_into().unwrap_or(std::num::NonZeroUsize::MIN);
            ep::XNNPACK::default()
                .with_intra_op_num_threads(threads)
                .build()
        }
        Provider::ROCm => ep::ROCm::default().build(),
    }
}

/// The same for a plugin, whose options carry its name.
fn options(provider: Provider, threads: usize) -> Vec<(String, String)> {
    let option = |key: &str, value: String| (format!("{}.{key}", name(provider)), value);
    match provider {
        // By itself it rounds to bfloat16 where the processor has instructions for that.
        Provider::OpenVINO => {
            let properties = json!({ "CPU": {
                "INFERENCE_NUM_THREADS": threads.to_string(),
                "INFERENCE_PRECISION_HINT": "f32",
            } });
            vec![option("load_config", properties.to_string())]
        }
        Provider::XNNPACK => vec![option("intra_op_num_threads", threads.to_string())],
        _ => Vec::new(),
    }
}

/// The plugin library of a provider where ONNX Runtime's is looked for: in the same folders, or in the cache.
fn plugin_of(provider: Provider) -> Option<PathBuf> {
    let (name, folder) = match provider {
        Provider::OpenVINO => (OPENVINO, "onnxruntime-openvino"),
        _ => return None,
    };
    let mut places = searched().into_iter().map(|place| place.join(name));
    places
        .find(|library| library.is_file())
        .or_else(|| newest_in(&cache_root()?.join(folder), name))
}

fn register(environment: &Environment, plugin: &Path) -> Result<(), String> {
    let mut plugins = PLUGINS.lock().unwrap_or_else(PoisonError::into_inner);
    let register = || {
        if !plugin.is_file() {
            return Err(format!("there is no plugin library {}", plugin.display()));
        }
        environment
            .register_ep_library(plugin.display().to_string(), plugin)
            .map_err(|error| {
                let words =
                    missing_library(error.message()).unwrap_or_else(|| error.message().to_owned());
                format!("the plugin {} cannot be used: {words}", plugin.display())
            })
    };
    plugins
        .entry(plugin.to_path_buf())
        .or_insert_with(register)
        .clone()
}

/// What a provider offers to compute on: the processor, or the first GPU.
fn devices(environment: &Environment, provider: Provider) -> Vec<Device<'_>> {
    let kind = if provider.is_gpu() {
        DeviceType::GPU
    } else {
        DeviceType::CPU
    };
    environment
        .devices()
        .filter(|device| {
            device.ep().is_ok_and(|ep| ep == name(provider))
                && device.hardware_device().ty() == kind
        })
        .take(1)
        .collect()
}

fn absent(provider: Provider) -> String {
    let built_in: Vec<_> = Provider::ALL
        .into_iter()
        .filter(|provider| is_built_in(*provider).unwrap_or(false))
        .map(Provider::as_str)
        .collect();
    let plugin = match provider {
        Provider::OpenVINO => format!(
            ", and there is no plugin {OPENVINO} beside it (--provider-library names one elsewhere)"
        ),
        _ => String::new(),
    };
    format!(
        "this ONNX Runtime library was built without it (it has {}){plugin}",
        built_in.join(", ")
    )
}

/// Why a provider refused, from ONNX Runtime's words.
pub(super) fn why(provider: Provider, words: &str) -> String {
    if let Some(missing) = missing_library(words) {
        return missing;
    }
    // cudaErrorNoDevice, cudaErrorInsufficientDriver and what the driver's absence is called.
    let no_device = [
        "no CUDA-capable device",
        "CUDA driver version is insufficient",
        "CUDA failure 35",
        "CUDA failure 100",
    ];
    if provider.is_gpu() && no_device.iter().any(|sign| words.contains(sign)) {
        return format!(
            "there is no GPU here that its driver lets it use ({})",
            first_line(words)
        );
    }
    first_line(words).to_owned()
}

/// "… libcublasLt.so.12: cannot open shared object file: No such file or directory" says what to install.
fn missing_library(words: &str) -> Option<String> {
    let (before, _) = words.split_once(": cannot open shared object file")?;
    let library = before.rsplit([' ', '/', '"']).next()?;
    let comes_from = match library.split(".so").next()? {
        "libcuda" => {
            ": it is the driver's, and containers get it that were given a GPU (nvidia.com/gpu) on a node with \
             one"
        }
        name if name.starts_with("libcu") => ": it belongs to CUDA or cuDNN",
        name if name.starts_with("libnv") => ": it belongs to TensorRT or CUDA",
        _ => "",
    };
    Some(format!(
        "the library {library} that it needs is not here{comes_from}"
    ))
}

/// The rest is where in ONNX Runtime's sources it happened.
fn first_line(words: &str) -> &str {
    words.lines().next().unwrap_or(words).trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_missing_is_named_and_a_gpu_that_is_missing_too() {
        let said = |words: &str| why(Provider::CUDA, words);
        let words = "/onnxruntime_src/onnxruntime/core/session/provider_bridge_ort.cc:1844 onnxruntime::Provider& \
                     onnxruntime::ProviderLibrary::Get() [ONNXRuntimeError] : 1 : FAIL : Failed to load library \
                     libonnxruntime_providers_cuda.so with error: libcublasLt.so.12: cannot open shared object file: No such \
                     file or directory\n";
        assert_eq!(
            said(words),
            "the library libcublasLt.so.12 that it needs is not here: it belongs to CUDA or cuDNN"
        );
        let answer = said(&words.replace("libcublasLt.so.12", "libcuda.so.1"));
        assert!(
            answer.contains("libcuda.so.1") && answer.contains("nvidia.com/gpu"),
            "{answer}"
        );
        let words =
            "CUDA failure 100: no CUDA-capable device is detected ; GPU=-1 ; hostname=x\nmore";
        let answer = said(words);
        assert!(answer.starts_with("there is no GPU here"), "{answer}");
        assert!(!answer.contains("more"), "{answer}");
        assert_eq!(said("something else\nat line 3"), "something else");
    }

    #[test]
    fn options_of_a_plugin_carry_its_name() {
        assert_eq!(
            options(Provider::OpenVINO, 2),
            [(
                "OpenVINOExecutionProvider.load_config".to_owned(),
                r#"{"CPU":{"INFERENCE_NUM_THREADS":"2","INFERENCE_PRECISION_HINT":"f32"}}"#
                    .to_owned()
            )]
        );
        assert_eq!(options(Provider::CUDA, 2), []);
    }
}
