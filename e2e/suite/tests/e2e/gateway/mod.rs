//! Services behind a real Gateway: `make e2e-gateway` gives them one, and the other suites have none, so all of
//! these are ignored there.
//!
//! The Gateway is of any implementation (`e2e/gateway`: Envoy Gateway).

mod environment;
