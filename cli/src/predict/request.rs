//! The request that is made of a file, a text or JSON.

use std::{io::Read as _, path::Path};

use http::{Method, header};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;

use super::{Error, ask::Request};
use crate::options::Predict;

/// What is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// To the model's pipeline.
    Raw {
        /// The body.
        body: Vec<u8>,
        /// What it is; `None` leaves it to the pipeline.
        content_type: Option<String>,
    },
    /// A request of the Open Inference Protocol.
    V2(Vec<u8>),
}

/// Reads what the command line names.
///
/// # Errors
/// When a file cannot be read, or is no JSON where it should be.
pub fn read(options: &Predict) -> Result<Input, Error> {
    if let Some(file) = &options.json {
        let body = contents(file)?;
        let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(&body);
        is_json.map_err(|why| Error::Json {
            file: file.display().to_string(),
            why,
        })?;
        return Ok(Input::V2(body));
    }
    if let Some(file) = &options.file {
        let content_type = options.content_type.clone().or_else(|| guess(file));
        return Ok(Input::Raw {
            body: contents(file)?,
            content_type,
        });
    }
    Ok(texts(&options.text))
}

/// One text is answered alone, several with a list.
fn texts(texts: &[String]) -> Input {
    let inputs = match texts {
        [one] => json!(one),
        all => json!(all),
    };
    let body = json!({"inputs": inputs}).to_string().into_bytes();
    Input::Raw {
        body,
        content_type: Some("application/json".into()),
    }
}

fn contents(file: &Path) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::File {
        file: file.display().to_string(),
        source,
    };
    if file == Path::new("-") {
        let mut body = Vec::new();
        std::io::stdin().read_to_end(&mut body).map_err(failed)?;
        return Ok(body);
    }
    std::fs::read(file).map_err(failed)
}

/// Only what changes how a pipeline reads a body: a photograph is known by its first bytes.
fn guess(file: &Path) -> Option<String> {
    let ending = file.extension()?.to_str()?.to_ascii_lowercase();
    let known = match ending.as_str() {
        "csv" => "text/csv",
        "json" => "application/json",
        "txt" | "md" => "text/plain",
        _ => return None,
    };
    Some(known.into())
}

/// The request.
///
/// # Errors
/// When a name cannot stand in a request.
pub fn build(model: &str, host: &str, input: Input) -> Result<Request, Error> {
    let model = utf8_percent_encode(model, NON_ALPHANUMERIC).to_string();
    let (path, body, content_type) = match input {
        Input::Raw { body, content_type } => (format!("/predict/{model}"), body, content_type),
        Input::V2(body) => (
            format!("/v2/models/{model}/infer"),
            body,
            Some("application/json".into()),
        ),
    };
    let mut request = http::Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(header::HOST, host)
        .header(
            header::USER_AGENT,
            concat!("ortolan/", env!("CARGO_PKG_VERSION")),
        );
    if let Some(content_type) = content_type {
        request = request.header(header::CONTENT_TYPE, content_type);
    }
    request.body(body.into()).map_err(|error| Error::Http {
        pod: host.to_owned(),
        why: format!("{error}; write a --content-type such as text/csv"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_is_is_guessed_only_where_it_matters() {
        for (file, is) in [
            ("a.csv", Some("text/csv")),
            ("a.JSON", Some("application/json")),
            ("letter.txt", Some("text/plain")),
            ("photo.jpg", None),
            ("-", None),
            ("noending", None),
        ] {
            assert_eq!(guess(Path::new(file)).as_deref(), is, "{file}");
        }
    }

    #[test]
    fn one_text_is_asked_alone_and_several_as_a_list() {
        for (given, body) in [
            (&["a \"b\""][..], r#"{"inputs":"a \"b\""}"#),
            (&["a", "b"], r#"{"inputs":["a","b"]}"#),
        ] {
            let given: Vec<String> = given.iter().map(|text| (*text).to_owned()).collect();
            let Input::Raw {
                body: made,
                content_type,
            } = texts(&given)
            else {
                panic!("a body")
            };
            assert_eq!(String::from_utf8_lossy(&made), body);
            assert_eq!(content_type.as_deref(), Some("application/json"));
        }
    }

    #[test]
    fn each_input_has_its_path_and_the_services_host() {
        let raw = Input::Raw {
            body: b"x".to_vec(),
            content_type: None,
        };
        let made = build("my model", "cats.demo.svc", raw).expect("a request");
        assert_eq!(made.uri().path(), "/predict/my%20model");
        assert_eq!(made.headers()[header::HOST], "cats.demo.svc");
        assert!(!made.headers().contains_key(header::CONTENT_TYPE));
        let made = build("m", "cats.demo.svc", Input::V2(b"{}".to_vec())).expect("a request");
        assert_eq!(made.uri().path(), "/v2/models/m/infer");
        assert_eq!(made.headers()[header::CONTENT_TYPE], "application/json");
        let bad = Input::Raw {
            body: Vec::new(),
            content_type: Some("a\nb".into()),
        };
        assert!(build("m", "h", bad).is_err());
    }

    #[test]
    fn a_request_that_is_no_json_is_not_sent() {
        let folder = std::env::temp_dir().join(format!("ortolan-predict-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let file = folder.join("request.json");
        std::fs::write(&file, "{\"inputs\": [").expect("a file");
        let options = Predict {
            name: "cats".into(),
            file: None,
            json: Some(file),
            text: Vec::new(),
            model: None,
            revision: None,
            content_type: None,
            timeout: crate::time::Timeout(None),
            output: None,
        };
        let error = read(&options).expect_err("no JSON").to_string();
        assert!(
            error.contains("is no JSON") && error.contains("write -f"),
            "{error}"
        );
        std::fs::remove_dir_all(folder).expect("it goes");
    }
}
