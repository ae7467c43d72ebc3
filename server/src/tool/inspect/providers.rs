//! Which execution providers ONNX Runtime's library brings along.

use ort::{ep::ExecutionProvider, session::builder::SessionBuilder};

/// A provider that is only asked for, never registered.
macro_rules! ask {
    ($($kind:ident = $name:literal),+ $(,)?) => {
        $(
            struct $kind;

            impl ExecutionProvider for $kind {
                const NAME: &'static str = concat!($name, "ExecutionProvider");

                fn register(&self, _: &mut SessionBuilder) -> ort::Result<()> {
                    Err(ort::Error::new(concat!($name, " is only asked for")))
                }
            }
        )+

        /// Those of the known providers that were built into the library, by ONNX Runtime's names.
        pub(super) fn in_library() -> Vec<&'static str> {
            let mut found = Vec::new();
            $(
                if $kind::is_available().unwrap_or(false) {
                    found.push($name);
                }
            )+
            found
        }
    };
}

ask! {
    Cpu = "CPU", Cuda = "CUDA", TensorRt = "Tensorrt", NvTensorRtRtx = "NvTensorRTRTX", Rocm = "ROCM",
    MiGraphX = "MIGraphX", OpenVino = "OpenVINO", Dnnl = "Dnnl", Xnnpack = "Xnnpack", Acl = "ACL",
    ArmNn = "ArmNN", CoreMl = "CoreML", DirectMl = "Dml", Qnn = "QNN", Cann = "CANN", Tvm = "Tvm",
    Vitis = "VitisAI", WebGpu = "WebGpu", Rknpu = "Rknpu", Vsi = "VSINPU", Azure = "Azure",
}
