//! What the derive cannot say about the schema: structural details that the API server needs.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use schemars::{Schema, SchemaGenerator, json_schema};

/// Descriptions of embedded Kubernetes types are cut at this length: `kubectl explain` still tells
/// what a field is, and the CRD stays small enough for client-side apply (262144 bytes).
const MAX_EMBEDDED_DESCRIPTION: usize = 200;

/// The rule of a duration: what [`crate::parse_duration`] reads.
pub(crate) const DURATION: &str =
    "self.matches('^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$') && self != ''";

/// A map of resource names to quantities, written as strings or as numbers.
pub(crate) fn quantities(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 20,
        "additionalProperties": {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": "^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$",
            "x-kubernetes-int-or-string": true
        }
    })
}

/// A whole number or `auto`.
pub(crate) fn sessions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "anyOf": [{"type": "integer"}, {"type": "string"}],
        "x-kubernetes-int-or-string": true,
        "x-kubernetes-validations": [{
            "rule": "type(self) == int ? int(self) >= 1 && int(self) <= 256 : string(self) == 'auto'",
            "message": "write auto (one session per CPU of the pod) or a number from 1 to 256"
        }]
    })
}

/// A whole number or a short text.
pub(crate) fn number_or_text(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "anyOf": [{"type": "integer"}, {"type": "string"}],
        "maxLength": 255,
        "x-kubernetes-int-or-string": true
    })
}

/// The fields whose types are Kubernetes' own.
pub(crate) const EMBEDDED: [&str; 5] = [
    "affinity",
    "conditions",
    "env",
    "tolerations",
    "topologySpreadConstraints",
];

/// Makes the derived schema what the API server should hold: no `default` and no `nullable` anywhere
/// (a null is pruned, like a field that was never written), and embedded Kubernetes types with short
/// descriptions.
pub(crate) fn finish(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        if let Some(schema) = version
            .schema
            .as_mut()
            .and_then(|schema| schema.open_api_v3_schema.as_mut())
        {
            walk(schema, false);
        }
    }
    crd
}

fn walk(schema: &mut JSONSchemaProps, embedded: bool) {
    schema.default = None;
    schema.nullable = None;
    if embedded && let Some(text) = &mut schema.description {
        shorten(text);
    }
    for (name, child) in schema.properties.iter_mut().flatten() {
        walk(child, embedded || EMBEDDED.contains(&name.as_str()));
    }
    match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(item)) => walk(item, embedded),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => {
            items.iter_mut().for_each(|item| walk(item, embedded));
        }
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(value)) = &mut schema.additional_properties {
        walk(value, embedded);
    }
}

/// Cuts at the end of the last sentence that fits, else at a word.
fn shorten(text: &mut String) {
    if text.len() <= MAX_EMBEDDED_DESCRIPTION {
        return;
    }
    let limit = text.floor_char_boundary(MAX_EMBEDDED_DESCRIPTION);
    let head = &text[..limit];
    let cut = head
        .rfind(". ")
        .map(|at| at + 1)
        .or_else(|| head.rfind(' '))
        .unwrap_or(limit);
    text.truncate(cut);
}
