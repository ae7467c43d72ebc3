//! How a model is run, as its own files say it: `config.pbtxt`, or `model.yaml`'s `batching`.
//!
//! Each value is optional: what is `None` or empty is the server's to choose. Nothing here knows the
//! graph, so that whether a value fits the model is found when it is loaded.

use std::{collections::BTreeMap, time::Duration};

/// What a model's own files say about running it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// How requests are put together.
    pub batching: Batching,
    /// Requests that may wait.
    pub queue: Option<usize>,
    /// How long a request may wait when it names no time itself.
    pub timeout: Option<Duration>,
    /// What happens to a request that has waited that long.
    pub overdue: Overdue,
    /// Whether a request may ask for less time than `timeout`; `None`: nothing is said, and it may.
    pub allow_shorter_timeout: Option<bool>,
    /// 1 to this number, 1 first; `None`: all requests are equal.
    pub priorities: Option<Priorities>,
    /// Sessions beside each other.
    pub sessions: Option<usize>,
    /// Threads inside one session.
    pub threads: Option<usize>,
    /// Where the model runs.
    pub device: Device,
    /// What it runs on a GPU with, in the place of CUDA.
    pub gpu_accelerator: Option<Accelerator>,
    /// What it runs on the processor with, in the place of ONNX Runtime's own kernels.
    pub cpu_accelerator: Option<Accelerator>,
    /// How far ONNX Runtime optimises the graph.
    pub optimization: Optimization,
    /// Equal requests may be answered from memory; `None`: the server decides.
    pub cache: Option<bool>,
    /// Shapes to run once before the model counts as ready.
    pub warm_up: Vec<WarmUp>,
    /// The inputs as the file declares them; checked against the graph. Empty: nothing is declared.
    pub inputs: Vec<Declared>,
    /// The outputs as the file declares them.
    pub outputs: Vec<Declared>,
    /// The names of an output's classes, by output.
    pub labels: BTreeMap<String, Vec<String>>,
}

/// How requests are put together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batching {
    /// Whether they are at all; `None`: the server decides from the graph.
    pub mode: Option<Mode>,
    /// Rows in one run at most, and in one request.
    pub max: Option<usize>,
    /// A batch of one of these sizes does not wait for more. Ascending.
    pub preferred: Vec<usize>,
    /// How long a request may wait for company.
    pub max_delay: Option<Duration>,
}

/// Whether requests share a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Each request is a run of its own.
    Alone,
    /// Requests that wait share a run.
    Together,
}

/// What happens to a request that has waited too long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overdue {
    /// It is answered with an error.
    #[default]
    Reject,
    /// It goes behind those that are not overdue.
    Delay,
}

/// Levels of priority: 1 is served first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Priorities {
    /// How many there are.
    pub levels: u32,
    /// The level of a request that names none.
    pub default: u32,
}

/// Where a model runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// Where the server was told to.
    #[default]
    Server,
    /// On the processor, whatever the server was told.
    Cpu,
    /// On a GPU.
    Gpu,
}

/// A provider that a file may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    /// On a GPU.
    TensorRt,
    /// On the processor.
    OpenVino,
}

/// How far ONNX Runtime optimises the graph.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Optimization {
    /// Not at all.
    Off,
    /// Redundant nodes go, constants are folded.
    Basic,
    /// Nodes are fused as well.
    Extended,
    /// Layouts are changed as well.
    #[default]
    All,
}

/// One run before the model counts as ready, on zeros.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WarmUp {
    /// As the file calls it.
    pub name: String,
    /// The whole shape of each input, the batch dimension with it.
    pub shapes: BTreeMap<String, Vec<i64>>,
}

/// An input or output as a file declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// The name in the graph.
    pub name: String,
    /// As the Open Inference Protocol calls it: `FP32`, `BYTES`. `None`: not said.
    pub datatype: Option<&'static str>,
    /// The whole shape, the batch dimension with it; -1 is any size. `None`: not said.
    pub shape: Option<Vec<i64>>,
}

impl Settings {
    /// With what `model.yaml` says of batching over what `config.pbtxt` says.
    #[must_use]
    pub fn overlaid(mut self, over: &Batching) -> Self {
        let under = &mut self.batching;
        under.mode = over.mode.or(under.mode);
        under.max = over.max.or(under.max);
        under.max_delay = over.max_delay.or(under.max_delay);
        if !over.preferred.is_empty() {
            under.preferred.clone_from(&over.preferred);
        }
        let max = under.max.unwrap_or(usize::MAX);
        under.preferred.retain(|size| *size <= max);
        self
    }
}
