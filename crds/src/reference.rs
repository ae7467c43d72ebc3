//! The API reference, `docs/api.md`, from the schema itself.

use std::fmt::Write as _;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray,
};

use crate::schema::EMBEDDED;

const HEAD: &str = "# API reference: InferenceService

`serving.ortolan.dev/v1alpha1`, short name `oisvc`. Generated from the CustomResourceDefinition by `scripts/crd.sh`: do not edit.
Nothing has a default in the schema; what a field means when it is absent stands beside it, and what the operator filled in is written
out in the revision (a `ControllerRevision`). Refusals are the API server's own, with these sentences.
";

/// The whole page.
#[must_use]
pub fn reference() -> String {
    let mut page = String::from(HEAD);
    for crd in crate::all() {
        for version in &crd.spec.versions {
            let Some(root) = version
                .schema
                .as_ref()
                .and_then(|s| s.open_api_v3_schema.as_ref())
            else {
                continue;
            };
            let rules = rules(root);
            if !rules.is_empty() {
                let _ = write!(page, "\n## metadata\n\n{rules}");
            }
            for part in ["spec", "status"] {
                if let Some(schema) = root.properties.as_ref().and_then(|p| p.get(part)) {
                    section(&mut page, part, schema);
                }
            }
        }
    }
    page
}

/// One table, then the tables of what it holds.
fn section(page: &mut String, path: &str, schema: &JSONSchemaProps) {
    let _ = write!(page, "\n## {path}\n\n{}\n", text(schema));
    let rules = rules(schema);
    if !rules.is_empty() {
        let _ = write!(page, "\n{rules}");
    }
    page.push_str("\n| field | type | meaning |\n|---|---|---|\n");
    let required = schema.required.clone().unwrap_or_default();
    let mut inner = Vec::new();
    for (name, field) in schema.properties.iter().flatten() {
        let mark = if required.contains(name) {
            " (required)"
        } else {
            ""
        };
        let refused: String = field
            .x_kubernetes_validations
            .iter()
            .flatten()
            .filter_map(|rule| rule.message.as_ref())
            .map(|message| format!("<br>Refused otherwise: *{}*", cell(message)))
            .collect();
        let _ = writeln!(
            page,
            "| `{name}`{mark} | {} | {}{refused} |",
            kind(name, field),
            cell(text(field))
        );
        let item = match &field.items {
            Some(JSONSchemaPropsOrArray::Schema(item)) => Some(item.as_ref()),
            _ => None,
        };
        for child in [Some(field), item].into_iter().flatten() {
            if child.properties.is_some() && !EMBEDDED.contains(&name.as_str()) {
                let suffix = if item.is_some() { "[]" } else { "" };
                inner.push((format!("{path}.{name}{suffix}"), child));
            }
        }
    }
    for (path, child) in inner {
        section(page, &path, child);
    }
}

fn rules(schema: &JSONSchemaProps) -> String {
    schema
        .x_kubernetes_validations
        .iter()
        .flatten()
        .filter_map(|rule| rule.message.as_ref())
        .map(|message| format!("- Refused otherwise: *{message}*\n"))
        .collect()
}

fn kind(name: &str, field: &JSONSchemaProps) -> String {
    if EMBEDDED.contains(&name) {
        return "Kubernetes' own type".into();
    }
    if field.x_kubernetes_int_or_string == Some(true) {
        return "number or string".into();
    }
    if let Some(values) = &field.enum_ {
        let values: Vec<String> = values
            .iter()
            .filter_map(|v| v.0.as_str())
            .map(|v| format!("`{v}`"))
            .collect();
        return values.join(", ");
    }
    let range = match (field.minimum, field.maximum) {
        (Some(low), Some(high)) => format!(", {low} to {high}"),
        (Some(low), None) => format!(", at least {low}"),
        _ => String::new(),
    };
    match field.type_.as_deref() {
        Some("object") if field.additional_properties.is_some() => "map".into(),
        Some("array") => match &field.items {
            Some(JSONSchemaPropsOrArray::Schema(item)) => {
                format!("list of {}", item.type_.as_deref().unwrap_or("values"))
            }
            _ => "list".into(),
        },
        Some(other) => format!("{other}{range}"),
        None => "any".into(),
    }
}

fn text(schema: &JSONSchemaProps) -> &str {
    schema.description.as_deref().unwrap_or_default()
}

/// On one line, with nothing that ends a table's cell.
fn cell(text: &str) -> String {
    text.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .replace('|', "\\|")
}
