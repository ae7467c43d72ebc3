//! Is it a repository or one model? Decided from names alone.
//!
//! A repository has folders, each with folders that are called by whole numbers and hold the `.onnx`
//! files. One such file and no `config.pbtxt` may as well be a single model that somebody filed under
//! its version: then it is one. What surrounds everything (`tar czf models.tar.gz models/`) is stepped over.

use super::version_number;
use crate::{tree::Entry, triton};

/// The folder that is a repository, relative to where `files` lie: `""`, or `models/`. `None`: they are
/// one model. `is_said`: that it is a repository is known, so that one model in it is enough.
pub(crate) fn root_of(files: &[Entry], is_said: bool) -> Option<&str> {
    let files: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
    let mut root = "";
    loop {
        if is_root(&files, root, is_said) {
            return Some(root);
        }
        let first = files.first()?;
        let end = root.len() + first[root.len()..].find('/')? + 1;
        root = &first[..end];
        if !files.iter().all(|file| file.starts_with(root)) {
            return None;
        }
    }
}

fn is_root(files: &[&str], root: &str, is_said: bool) -> bool {
    let below = || files.iter().filter_map(|file| file.strip_prefix(root));
    let mut places = Vec::new();
    for file in below().filter(|file| is_onnx(file)) {
        let mut parts = file.splitn(3, '/');
        match (
            parts.next(),
            parts.next().and_then(version_number),
            parts.next(),
        ) {
            (Some(model), Some(version), Some(_)) => places.push((model, version)),
            // A model that lies beside the versions, or above them.
            _ => return false,
        }
    }
    places.dedup();
    let is_config = |file: &str| {
        let mut parts = file.split('/');
        parts.nth(1) == Some(triton::FILE) && parts.next().is_none()
    };
    places.len() > usize::from(!is_said) || below().any(is_config)
}

fn is_onnx(path: &str) -> bool {
    path.to_ascii_lowercase().ends_with(".onnx")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(files: &[&str], is_said: bool) -> Option<String> {
        let entries: Vec<Entry> = files
            .iter()
            .map(|path| Entry {
                path: (*path).to_owned(),
                bytes: 1,
                stamp: Default::default(),
            })
            .collect();
        root_of(&entries, is_said).map(str::to_owned)
    }

    #[test]
    fn a_repository_is_told_from_a_model_by_its_names() {
        let cases: [(&[&str], Option<&str>); 16] = [
            (&["a/1/model.onnx", "b/1/model.onnx"], Some("")),
            (&["a/1/model.onnx", "a/2/model.onnx"], Some("")),
            (&["a/1/model.onnx", "a/config.pbtxt"], Some("")),
            (&["a/config.pbtxt"], Some("")),
            (
                &["README.md", "a/1/m.onnx", "a/1/w.bin", "b/7/m.onnx"],
                Some(""),
            ),
            (
                &["repo/a/1/model.onnx", "repo/b/1/model.onnx"],
                Some("repo/"),
            ),
            (&["x/y/a/1/model.onnx", "x/y/a/config.pbtxt"], Some("x/y/")),
            // One model.
            (&["model.onnx"], None),
            (&["net/model.onnx", "net/model.yaml"], None),
            (&["net/1/model.onnx"], None),
            (&["net/1/a.onnx", "net/1/b.onnx"], None),
            (&["1/model.onnx", "config.pbtxt"], None),
            (&["a.onnx", "b/1/c.onnx"], None),
            (&["a/one/model.onnx", "a/two/model.onnx"], None),
            (&["a/01/model.onnx", "a/02/model.onnx"], None),
            (&[], None),
        ];
        for (files, expected) in cases {
            assert_eq!(root(files, false).as_deref(), expected, "{files:?}");
        }
    }

    #[test]
    fn where_a_repository_is_meant_one_model_is_enough() {
        assert_eq!(root(&["net/1/model.onnx"], true).as_deref(), Some(""));
        assert_eq!(
            root(&["models/net/1/m.onnx"], true).as_deref(),
            Some("models/")
        );
        assert_eq!(root(&["model.onnx"], true), None);
        assert_eq!(root(&[], true), None);
    }
}
