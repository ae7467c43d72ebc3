//! The Ortolan server: one ONNX model over HTTP.
