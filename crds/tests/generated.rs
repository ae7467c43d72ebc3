//! The committed CustomResourceDefinition is what the types say, and fits every way of applying it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use serde_json::Value;

/// Client-side `kubectl apply` stores the object as JSON in an annotation; all annotations together
/// may take 262144 bytes. The design's own limit is lower.
const MAX_BYTES: usize = 200_000;

fn generated() -> String {
    ortolan_crds::all()
        .iter()
        .map(|crd| ortolan_crds::to_yaml(crd).expect("a CRD is YAML"))
        .collect()
}

#[test]
fn the_committed_yaml_is_what_the_types_say() {
    assert!(
        ortolan_crds::YAML == generated(),
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

/// The fields of a pipeline's half, and the words of those that have a closed set.
type Fields = BTreeMap<String, BTreeSet<String>>;

fn words(schema: &Value) -> BTreeSet<String> {
    let listed = schema["enum"].as_array().into_iter().flatten();
    let each = schema["oneOf"].as_array().into_iter().flatten();
    let each = each.flat_map(|word| {
        let several = word["enum"].as_array().into_iter().flatten();
        several.chain(std::iter::once(&word["const"]))
    });
    let all = listed.chain(each).filter_map(Value::as_str);
    all.map(str::to_owned).collect()
}

/// Of `model.yaml`: the fields of all kinds together.
fn fields_of_the_server(definitions: &Value, half: &str) -> Fields {
    let of = |schema: &Value| {
        let name = schema["$ref"].as_str().and_then(|r| r.rsplit('/').next());
        name.map_or_else(|| schema.clone(), |name| definitions[name].clone())
    };
    let mut fields = Fields::new();
    for kind in definitions[half]["anyOf"].as_array().expect("kinds") {
        for (name, field) in of(kind)["properties"].as_object().expect("fields") {
            let optional = field["anyOf"].as_array().and_then(|any| any.first());
            let field = of(optional.unwrap_or(field));
            fields
                .entry(name.clone())
                .or_default()
                .extend(words(&field));
        }
    }
    fields
}

#[test]
fn the_pipeline_has_the_fields_and_words_of_model_yaml() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../server/model/model.schema.json");
    let text = fs::read_to_string(path).expect("server/model/model.schema.json");
    let server: Value = serde_json::from_str(&text).expect("JSON");
    let crd = serde_json::to_value(&ortolan_crds::all()[0]).expect("JSON");
    let root = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let pipeline = &root["properties"]["spec"]["properties"]["server"]["properties"]["pipeline"];
    for half in ["Input", "Output"] {
        let ours = &pipeline["properties"][half.to_lowercase()]["properties"];
        let ours = ours.as_object().expect("fields").iter();
        let ours: Fields = ours.map(|(name, f)| (name.clone(), words(f))).collect();
        let theirs = fields_of_the_server(&server["$defs"], half);
        assert!(theirs.values().any(|words| !words.is_empty()), "{theirs:?}");
        assert_eq!(ours, theirs, "{half}");
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
