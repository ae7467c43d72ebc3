//! Which file of a directory or an unpacked archive is the model, and where its `model.yaml` is.
//!
//! The rule: exactly one `.onnx` file; or several, of which one lies at the top and is called
//! `model.onnx`. The top is the directory itself, or the single folder that it holds (as `tar czf
//! m.tar.gz efficientnet/` makes it). `model.yaml` lies beside the model or at the top.

use std::path::{Path, PathBuf};

use crate::{
    config,
    failure::{Failure, Reason},
    tree::Entry,
    triton,
};

/// Where the parts of a package lie, relative to its directory.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Parts {
    pub(crate) model: PathBuf,
    pub(crate) config: Option<PathBuf>,
    /// Triton's `config.pbtxt`.
    pub(crate) triton: Option<PathBuf>,
}

/// Finds the parts among `entries`. `what` names the archive or the directory in sentences,
/// `reason` is the one for a package without a single model.
pub(crate) fn locate(what: &str, reason: Reason, entries: &[Entry]) -> Result<Parts, Failure> {
    let files: Vec<&str> = entries
        .iter()
        .map(|e| e.path.as_str())
        .filter(|p| !is_litter(p))
        .collect();
    let top = top_folder(&files);
    let model = model(what, reason, &files, top)?;
    Ok(Parts {
        model: PathBuf::from(model),
        config: config_file(&files, top, model)?,
        triton: triton_file(&files, top, model),
    })
}

/// What macOS adds to archives.
fn is_litter(path: &str) -> bool {
    path.split('/')
        .any(|part| part == "__MACOSX" || part.starts_with('.'))
}

/// `""`, or the one folder that holds everything, with its slash.
fn top_folder<'a>(files: &[&'a str]) -> &'a str {
    let mut top = "";
    loop {
        let next = files.first().and_then(|first| {
            let end = first[top.len()..].find('/')?;
            Some(&first[..top.len() + end + 1])
        });
        match next {
            Some(next) if files.iter().all(|f| f.starts_with(next)) => top = next,
            _ => return top,
        }
    }
}

fn model<'a>(what: &str, reason: Reason, files: &[&'a str], top: &str) -> Result<&'a str, Failure> {
    let models: Vec<&str> = files.iter().copied().filter(|f| is_onnx(f)).collect();
    match models[..] {
        [one] => Ok(one),
        [] => Err(Failure::new(
            reason,
            format!(
                "{what} holds no .onnx file{}; put one model into it",
                listed(", only ", files)
            ),
        )),
        _ => {
            let named = format!("{top}model.onnx");
            models.iter().copied().find(|m| *m == named).ok_or_else(|| {
                Failure::new(
                    reason,
                    format!(
                        "{what} holds {} models{}; keep one, or call the one to serve model.onnx \
                         and put it at the top",
                        models.len(),
                        listed(": ", &models)
                    ),
                )
            })
        }
    }
}

fn is_onnx(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.len() > ".onnx".len() && name.to_ascii_lowercase().ends_with(".onnx")
}

/// At most five names.
fn listed(before: &str, files: &[&str]) -> String {
    if files.is_empty() {
        return String::new();
    }
    let more = if files.len() > 5 { ", …" } else { "" };
    format!("{before}{}{more}", files[..files.len().min(5)].join(", "))
}

fn config_file(files: &[&str], top: &str, model: &str) -> Result<Option<PathBuf>, Failure> {
    let beside = Path::new(model).parent().unwrap_or(Path::new(""));
    for folder in [beside, Path::new(top)] {
        let path = folder.join(config::FILE);
        if files.iter().any(|f| Path::new(f) == path) {
            return Ok(Some(path));
        }
        let other = folder.join("model.yml");
        if files.iter().any(|f| Path::new(f) == other) {
            return Err(misnamed(&other));
        }
    }
    Ok(None)
}

/// Beside the model, beside the version's folder that the model is in, or at the top.
fn triton_file(files: &[&str], top: &str, model: &str) -> Option<PathBuf> {
    let beside = Path::new(model).parent().unwrap_or(Path::new(""));
    let places = [beside, beside.parent().unwrap_or(beside), Path::new(top)];
    let mut candidates = places.into_iter().map(|place| place.join(triton::FILE));
    candidates.find(|path| files.iter().any(|file| Path::new(file) == path))
}

/// A `model.yml` would be ignored in silence otherwise.
pub(crate) fn misnamed(path: &Path) -> Failure {
    Failure::new(
        Reason::InvalidConfig,
        format!("{} is not read; call it {}", path.display(), config::FILE),
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn find(files: &[&str]) -> Result<Parts, Failure> {
        let entries: Vec<Entry> = files
            .iter()
            .map(|f| Entry {
                path: (*f).to_owned(),
                bytes: 1,
                stamp: Default::default(),
            })
            .collect();
        locate("m.tar", Reason::ArchiveRefused, &entries)
    }

    #[test]
    fn the_model_is_found_at_the_top_in_one_folder_and_deeper() {
        let cases: [(&[&str], &str, Option<&str>); 7] = [
            (&["m.onnx"], "m.onnx", None),
            (
                &["m.ONNX", "model.yaml", "labels.txt"],
                "m.ONNX",
                Some("model.yaml"),
            ),
            (
                &["net/m.onnx", "net/model.yaml"],
                "net/m.onnx",
                Some("net/model.yaml"),
            ),
            (
                &["net/1/m.onnx", "net/model.yaml"],
                "net/1/m.onnx",
                Some("net/model.yaml"),
            ),
            (&["__MACOSX/._m.onnx", "._m.onnx", "m.onnx"], "m.onnx", None),
            (&["model.onnx", "other.onnx"], "model.onnx", None),
            (
                &["n/a.onnx", "n/model.onnx", "n/w.bin"],
                "n/model.onnx",
                None,
            ),
        ];
        for (files, model, config) in cases {
            let parts = find(files).unwrap();
            assert_eq!(parts.model, Path::new(model), "{files:?}");
            assert_eq!(parts.config.as_deref(), config.map(Path::new), "{files:?}");
        }
    }

    #[test]
    fn no_model_and_several_models_are_refused_with_their_names() {
        let cases: [(&[&str], &str); 5] = [
            (&[], "holds no .onnx file; put"),
            (&["model.pt", "a/b"], "only model.pt, a/b"),
            (&[".onnx"], "holds no .onnx file"),
            (&["a.onnx", "b.onnx"], "holds 2 models: a.onnx, b.onnx"),
            (&["a/model.onnx", "b/model.onnx"], "holds 2 models"),
        ];
        for (files, words) in cases {
            let failure = find(files).unwrap_err();
            assert_eq!(failure.reason, Reason::ArchiveRefused);
            assert!(failure.message.contains(words), "{failure}");
        }
    }

    #[test]
    fn tritons_configuration_is_found_beside_the_model_and_beside_its_version() {
        let cases: [(&[&str], Option<&str>); 4] = [
            (&["m.onnx", "config.pbtxt"], Some("config.pbtxt")),
            (&["1/m.onnx", "config.pbtxt"], Some("config.pbtxt")),
            (
                &["net/1/m.onnx", "net/config.pbtxt"],
                Some("net/config.pbtxt"),
            ),
            (&["m.onnx", "other/config.pbtxt"], None),
        ];
        for (files, triton) in cases {
            let parts = find(files).unwrap();
            assert_eq!(parts.triton.as_deref(), triton.map(Path::new), "{files:?}");
        }
    }

    #[test]
    fn a_model_yml_is_not_ignored_in_silence() {
        let failure = find(&["m.onnx", "model.yml"]).unwrap_err();
        assert_eq!(failure.reason, Reason::InvalidConfig);
        assert!(failure.message.contains("call it model.yaml"), "{failure}");
    }
}
