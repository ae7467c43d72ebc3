//! Standard output: texts, JSON and YAML.

use std::io::Write as _;

use serde::Serialize;

use crate::{error::Error, options::Format};

/// Prints a text that ends with a newline. Control characters are left out: much of a text comes from a cluster, and a
/// terminal would obey them.
///
/// # Errors
/// When nobody reads it.
pub fn print(text: &str) -> Result<(), Error> {
    let text: String = text
        .chars()
        .filter(|c| !c.is_control() || matches!(c, '\n' | '\t'))
        .collect();
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Prints a value.
///
/// # Errors
/// When nobody reads it.
pub fn print_as(value: &impl Serialize, format: Format) -> Result<(), Error> {
    print(&text(value, format)?)
}

/// A value as a text that ends with a newline.
///
/// # Errors
/// When the value has no such form.
pub fn text(value: &impl Serialize, format: Format) -> Result<String, Error> {
    let text = match format {
        Format::Json => {
            serde_json::to_string_pretty(value).map_err(|e| Error::Format(e.to_string()))?
        }
        Format::Yaml => ortolan_crds::to_yaml(value).map_err(|e| Error::Format(e.to_string()))?,
    };
    Ok(format!("{}\n", text.trim_end()))
}
