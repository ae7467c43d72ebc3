//! From outputs to the body of an answer: JSON, and behind it the bytes of the outputs that are wanted so.
//! Their memory is copied once, into the body.

use http::{HeaderValue, header};

use super::request::JSON_LENGTH;
use crate::{
    binary,
    http::{Answer, json},
    infer::Outcome,
    json::write,
    model::Model,
    oip::{Answered, Wanted},
    signature::show_shape,
};

/// Writes an answer. The outcome's outputs are those that were asked for, in that order.
pub(super) fn write(
    model: &Model,
    id: Option<&str>,
    asked: &[Wanted],
    outcome: &Outcome,
) -> Answer {
    let answered: Result<Vec<_>, _> = asked
        .iter()
        .zip(&outcome.outputs)
        .map(|(wanted, output)| {
            Answered::of(model, wanted, output).map(|answered| (wanted, answered))
        })
        .collect();
    let answered = answered?;
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(b"{\"model_name\":");
    write::string(&mut out, &model.name);
    out.extend_from_slice(b",\"model_version\":");
    write::string(&mut out, &model.version);
    if let Some(id) = id {
        out.extend_from_slice(b",\"id\":");
        write::string(&mut out, id);
    }
    out.extend_from_slice(b",\"outputs\":[");
    let mut tensors = 0;
    for (place, (wanted, answered)) in answered.iter().enumerate() {
        let elements = answered.elements()?;
        if place > 0 {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"name\":");
        write::string(&mut out, &model.signature.outputs[wanted.index].name);
        out.extend_from_slice(b",\"datatype\":");
        write::string(&mut out, answered.datatype().as_str());
        out.extend_from_slice(b",\"shape\":");
        out.extend_from_slice(show_shape(answered.shape()).as_bytes());
        if wanted.binary {
            let size = binary::size(elements);
            tensors += size;
            out.extend_from_slice(b",\"parameters\":{\"binary_data_size\":");
            out.extend_from_slice(itoa::Buffer::new().format(size).as_bytes());
            out.push(b'}');
        } else {
            out.extend_from_slice(b",\"data\":");
            // The protocol's data is an array even for a scalar.
            write::elements(&mut out, elements, answered.shape(), write::Layout::Flat);
        }
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
    if !asked.iter().any(|wanted| wanted.binary) {
        return Ok(json(out));
    }
    let length = HeaderValue::from(out.len());
    out.reserve_exact(tensors);
    for (wanted, answered) in &answered {
        if wanted.binary {
            binary::write(&mut out, answered.elements()?);
        }
    }
    let mut response = json(out);
    let headers = response.headers_mut();
    let kind = HeaderValue::from_static("application/octet-stream");
    headers.insert(header::CONTENT_TYPE, kind);
    headers.insert(JSON_LENGTH, length);
    Ok(response)
}
