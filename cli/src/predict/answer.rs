//! What a model answered: classes as a table, everything else as JSON that can be read.

use serde_json::Value;

use crate::{error::Error, options::Format, output, table::Table};

/// How much of an answer that is no JSON is shown.
const SHOWN: usize = 500;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP's code.
    pub code: u16,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// Whether it is a prediction.
    pub const fn is_success(&self) -> bool {
        matches!(self.code, 200..300)
    }

    fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }

    fn plain(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        match text.chars().count() {
            0 => "(nothing)".into(),
            1..=SHOWN => text.trim_end().to_owned(),
            _ => format!("{}…", text.chars().take(SHOWN).collect::<String>()),
        }
    }

    /// The sentence of a refusal.
    pub fn says(&self) -> String {
        let json = self.json();
        let sentence = json.as_ref().and_then(|json| json["error"].as_str());
        sentence.map_or_else(|| self.plain(), str::to_owned)
    }

    /// The text to print.
    ///
    /// # Errors
    /// When it has no such form.
    pub fn text(&self, format: Option<Format>) -> Result<String, Error> {
        let Some(json) = self.json() else {
            return Ok(format!("{}\n", self.plain()));
        };
        match format {
            Some(format) => output::text(&json, format),
            None => match classes(&json) {
                Some(table) => Ok(table),
                None => output::text(&json, Format::Json),
            },
        }
    }
}

/// The table of a classification: of one item, or of each item of a list.
fn classes(answer: &Value) -> Option<String> {
    let predictions = answer["predictions"].as_array()?;
    let is_list = predictions.iter().all(Value::is_array);
    if !is_list || predictions.is_empty() {
        return Some(table(predictions, None)?.render());
    }
    let items: Option<Vec<String>> = predictions
        .iter()
        .enumerate()
        .map(|(item, classes)| Some(table(classes.as_array()?, Some(item))?.render()))
        .collect();
    Some(items?.join("\n"))
}

fn table(classes: &[Value], item: Option<usize>) -> Option<Table> {
    let head = match item {
        None => "LABEL".into(),
        Some(item) => format!("LABEL OF ITEM {}", item + 1),
    };
    let mut table = Table::new(&[&head, "INDEX", "PROBABILITY"]);
    for class in classes {
        let index = class["index"].as_i64()?;
        let probability = class["probability"].as_f64()?;
        let label = class["label"].as_str().unwrap_or_default();
        table.row([
            label.to_owned(),
            index.to_string(),
            format!("{:.1} %", probability * 100.0),
        ]);
    }
    Some(table)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(code: u16, body: &Value) -> Answer {
        Answer {
            code,
            body: body.to_string().into_bytes(),
        }
    }

    #[test]
    fn classes_are_a_table() {
        let one = json!({"model": "m", "version": "1", "predictions": [
            {"label": "daisy", "index": 985, "probability": 0.193_871_44},
            {"index": 947, "probability": 0.107}]});
        assert_eq!(
            answer(200, &one).text(None).expect("a text"),
            "LABEL   INDEX   PROBABILITY\ndaisy   985     19.4 %\n-       947     10.7 %\n"
        );
        let two = json!({"predictions": [[{"label": "a", "index": 0, "probability": 1.0}], [{"label": "b", "index": 1, "probability": 0.5}]]});
        assert_eq!(
            answer(200, &two).text(None).expect("a text"),
            "LABEL OF ITEM 1   INDEX   PROBABILITY\na                 0       100.0 %\n\n\
             LABEL OF ITEM 2   INDEX   PROBABILITY\nb                 1       50.0 %\n"
        );
    }

    #[test]
    fn anything_else_is_json_as_it_came() {
        for body in [
            json!({"outputs": [{"name": "y", "data": [1.0]}]}),
            json!({"predictions": [[0.5, 0.5]]}),
            json!([1]),
        ] {
            let text = answer(200, &body).text(None).expect("a text");
            assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), body);
        }
        let classes = json!({"predictions": [{"label": "a", "index": 0, "probability": 1.0}]});
        let text = answer(200, &classes)
            .text(Some(Format::Json))
            .expect("a text");
        assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), classes);
        let plain = Answer {
            code: 200,
            body: b"hello\n".to_vec(),
        };
        assert_eq!(plain.text(None).expect("a text"), "hello\n");
    }

    #[test]
    fn a_refusal_is_told_in_the_servers_words() {
        assert!(!answer(404, &json!({})).is_success());
        assert_eq!(
            answer(404, &json!({"error": "no model cats"})).says(),
            "no model cats"
        );
        let page = Answer {
            code: 502,
            body: vec![b'x'; 2000],
        };
        assert_eq!(page.says().chars().count(), SHOWN + 1);
        assert_eq!(
            Answer {
                code: 500,
                body: Vec::new()
            }
            .says(),
            "(nothing)"
        );
    }
}
