//! The committed CustomResourceDefinition is what the types say, and fits every way of applying it.

use std::{fs, path::Path};

use serde_json::Value;

/// Client-side `kubectl apply` stores the object as JSON in an annotation; all annotations together
/// may take 262144 bytes. The design's own limit is lower.
const MAX_BYTES: usize = 200_000;

fn committed() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("inferenceservices.yaml")
}

fn generated() -> String {
    ortolan_crds::all()
        .iter()
        .map(|crd| ortolan_crds::to_yaml(crd).expect("a CRD is YAML"))
        .collect()
}

#[test]
fn the_committed_yaml_is_what_the_types_say() {
    let committed = fs::read_to_string(committed()).expect("crds/inferenceservices.yaml");
    assert!(
        committed == generated(),
        "crds/inferenceservices.yaml is stale: run scripts/crd.sh and commit what it writes"
    );
}

#[test]
fn the_api_reference_is_what_the_types_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/api.md");
    let committed = fs::read_to_string(path).expect("docs/api.md");
    assert!(
        committed == ortolan_crds::reference(),
        "docs/api.md is stale: run scripts/crd.sh and commit what it writes"
    );
}

#[test]
fn the_definition_is_small_enough_for_client_side_apply() {
    let yaml = generated().len();
    assert!(yaml < MAX_BYTES, "{yaml} bytes");
}

#[test]
fn no_field_has_a_default_or_is_nullable() {
    fn walk(path: &str, value: &Value) {
        match value {
            Value::Object(map) => {
                for (key, child) in map {
                    let path = format!("{path}/{key}");
                    let is_keyword = !path.ends_with("/properties/default");
                    assert!(
                        !(is_keyword && (key == "default" || key == "nullable")),
                        "{path}: a new default would change stored objects without a generation"
                    );
                    walk(&path, child);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| walk(path, item)),
            _ => {}
        }
    }
    for crd in ortolan_crds::all() {
        walk("", &serde_json::to_value(&crd).expect("JSON"));
    }
}

#[test]
fn every_field_says_what_it_is() {
    fn walk(path: &str, schema: &Value) {
        if let Some(properties) = schema["properties"].as_object() {
            for (name, child) in properties {
                let path = format!("{path}.{name}");
                // Kubernetes' own types leave a few of their fields undescribed.
                if path.matches('.').count() <= 4 && !path.contains(".metadata") {
                    assert!(
                        child["description"].is_string(),
                        "{path} has no description"
                    );
                }
                walk(&path, child);
            }
        }
    }
    for crd in ortolan_crds::all() {
        let crd = serde_json::to_value(&crd).expect("JSON");
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
        walk("spec", &schema["spec"]);
        walk("status", &schema["status"]);
    }
}

#[test]
fn a_quantity_may_be_a_number() {
    let spec: ortolan_crds::InferenceServiceSpec = serde_json::from_value(serde_json::json!({
        "model": {"uri": "https://models.example.com/m.onnx"},
        "server": {"resources": {"requests": {"cpu": 1, "memory": "512Mi"}}, "sessions": 2},
    }))
    .expect("decodes");
    let server = spec.server.expect("server");
    assert_eq!(server.resources.expect("resources").requests["cpu"].0, "1");
    assert_eq!(server.sessions, Some(ortolan_crds::Sessions::Count(2)));
}
