//! Which requests are traced: those that ask a model. Probes, scrapes and what describes a model are not.

use http::Method;

const INFER: &str = "inference.GRPCInferenceService/ModelInfer";
const STREAM: &str = "inference.GRPCInferenceService/ModelStreamInfer";

/// What a request asks for, by what it is called in traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// Of HTTP: its name is the method, a blank and the route.
    Rest(&'static str),
    /// Of gRPC: its name is the method's.
    Grpc(&'static str),
    /// One of a gRPC stream's requests.
    Streamed,
}

impl Call {
    /// `None`: nothing that is traced.
    pub(super) fn of(method: &Method, path: &str, is_grpc: bool) -> Option<Self> {
        if is_grpc {
            let name = path.strip_prefix('/')?;
            let known = [INFER, STREAM].into_iter().find(|known| *known == name);
            return known.map(Self::Grpc);
        }
        if method != Method::POST {
            return None;
        }
        let mut segments = path.split('/').skip(1);
        let parts: [&str; 6] = std::array::from_fn(|_| segments.next().unwrap_or_default());
        let name = match parts {
            _ if segments.next().is_some() => return None,
            ["v2", "models", _, "infer", "", ""] => "POST /v2/models/{model}/infer",
            ["v2", "models", _, "versions", _, "infer"] => {
                "POST /v2/models/{model}/versions/{version}/infer"
            }
            ["v1", "models", verb, "", "", ""] if verb.ends_with(":predict") => {
                "POST /v1/models/{model}:predict"
            }
            ["v1", "embeddings", "", "", "", ""] => "POST /v1/embeddings",
            ["predict", _, "", "", "", ""] => "POST /predict/{model}",
            _ => return None,
        };
        Some(Self::Rest(name))
    }

    /// The span's.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Rest(name) | Self::Grpc(name) => name,
            Self::Streamed => "request",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_asks_a_model_is_traced_under_its_route_and_nothing_else_is() {
        for (path, name) in [
            ("/v2/models/m/infer", "POST /v2/models/{model}/infer"),
            (
                "/v2/models/m/versions/3/infer",
                "POST /v2/models/{model}/versions/{version}/infer",
            ),
            ("/v1/models/m:predict", "POST /v1/models/{model}:predict"),
            ("/v1/embeddings", "POST /v1/embeddings"),
            ("/predict/m", "POST /predict/{model}"),
        ] {
            let call = Call::of(&Method::POST, path, false);
            assert_eq!(call, Some(Call::Rest(name)), "{path}");
            assert_eq!(Call::of(&Method::GET, path, false), None, "{path}");
            assert_eq!(Call::of(&Method::POST, path, true), None, "{path}");
        }
        for path in [
            "/",
            "",
            "/metrics",
            "/v2/models/m",
            "/v2/models/m/config",
            "/v2/models/m/versions/3/infer/more",
            "/v2/repository/models/m/load",
            "/v1/models/m",
            "/v1/models/m:explain",
        ] {
            assert_eq!(Call::of(&Method::POST, path, false), None, "{path}");
        }
        for (method, is_traced) in [
            ("ModelInfer", true),
            ("ModelStreamInfer", true),
            ("ModelMetadata", false),
        ] {
            let path = format!("/inference.GRPCInferenceService/{method}");
            let call = Call::of(&Method::POST, &path, true);
            let name = call.map(Call::name);
            assert_eq!(name, is_traced.then_some(&path[1..]));
        }
    }
}
