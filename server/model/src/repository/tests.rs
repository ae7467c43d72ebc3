use std::os::unix::fs::symlink;

use super::*;

/// A repository with these files; each holds its own path.
fn repository(files: &[&str]) -> (tempfile::TempDir, Repository) {
    let dir = tempfile::tempdir().unwrap();
    for file in files {
        write(dir.path(), file, file);
    }
    let repository = Repository::new(dir.path().to_path_buf(), None, 1 << 20);
    (dir, repository)
}

fn write(root: &Path, file: &str, content: &str) {
    let path = root.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn open(repository: &Repository, name: &str, version: u64) -> Result<Package, Failure> {
    repository.open(name, version, &repository.mark(name, version)?)
}

fn versions(listing: &Listing, name: &str) -> Vec<u64> {
    listing.models[name]
        .as_ref()
        .unwrap()
        .versions
        .keys()
        .copied()
        .collect()
}

fn reason(listing: &Listing, name: &str) -> String {
    listing.models[name].as_ref().unwrap_err().to_string()
}

#[test]
fn a_look_finds_models_their_versions_and_what_is_wrong_with_the_others() {
    let (dir, repository) = repository(&[
        "README.md",
        "iris/1/model.onnx",
        "iris/2/model.onnx",
        "iris/10/model.onnx",
        "iris/notes/x.onnx",
        "docs/page.html",
        "my model/1/model.onnx",
        ".git/1/model.onnx",
        "zero/0/model.onnx",
    ]);
    write(
        dir.path(),
        "all/config.pbtxt",
        "version_policy { all {} } brand_new: 1",
    );
    write(dir.path(), "all/3/model.onnx", "a");
    write(dir.path(), "all/4/model.onnx", "b");
    write(dir.path(), "bad/config.pbtxt", "max_batch_size: many");
    write(dir.path(), "bad/1/model.onnx", "");
    write(dir.path(), "empty/config.pbtxt", "");
    write(dir.path(), "other/config.pbtxt", "name: \"another\"");
    write(
        dir.path(),
        "seven/config.pbtxt",
        "version_policy { specific { versions: 7 } }",
    );
    write(dir.path(), "seven/1/model.onnx", "");
    let listing = repository.look().unwrap();
    assert_eq!(versions(&listing, "iris"), [10]);
    assert_eq!(versions(&listing, "all"), [3, 4]);
    assert_eq!(
        listing.models["all"].as_ref().unwrap().notes,
        ["brand_new (line 1) is not known"]
    );
    assert!(reason(&listing, "bad").contains("max_batch_size is many"));
    assert!(reason(&listing, "empty").contains("put the model into empty/1/model.onnx"));
    assert!(reason(&listing, "other").contains("name is \"another\""));
    assert!(reason(&listing, "seven").contains("chooses none of the versions that are there: 1"));
    assert!(reason(&listing, "my model").contains("rename it"));
    let mut ignored = listing.ignored;
    ignored.sort();
    assert_eq!(ignored, ["docs", "zero"]);
}

#[test]
fn one_folder_that_leads_out_of_the_volume_hides_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    write(dir.path(), "good/1/model.onnx", "a");
    write(dir.path(), "out/config.pbtxt", "");
    symlink(outside.path(), dir.path().join("out/1")).unwrap();
    let root = dir.path().to_path_buf();
    let repository = Repository::new(root.clone(), Some(root), 1 << 20);
    let listing = repository.look().unwrap();
    assert_eq!(versions(&listing, "good"), [1]);
    assert!(reason(&listing, "out").contains("leads out of"));
}

#[test]
fn a_mark_changes_with_the_files_of_its_version_and_those_beside_it() {
    let (dir, repository) = repository(&["m/1/model.onnx", "m/2/model.onnx", "m/labels.txt"]);
    write(dir.path(), "m/config.pbtxt", "version_policy { all {} }");
    let marks = || {
        let folder = repository.look_at("m").unwrap().unwrap();
        (folder.versions[&1].clone(), folder.versions[&2].clone())
    };
    let first = marks();
    assert_eq!(marks(), first, "nothing changed");
    // The same length and, as `cp -p` does it, the same time of modification.
    let path = dir.path().join("m/2/model.onnx");
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, "m/2/model.onnX").unwrap();
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(modified)
        .unwrap();
    let second = marks();
    assert_eq!(second.0, first.0);
    assert_ne!(second.1, first.1);
    write(dir.path(), "m/labels.txt", "daisy");
    let third = marks();
    assert!(third.0 != second.0 && third.1 != second.1);
}

#[test]
fn the_digest_is_of_the_version_and_what_lies_beside_it_whatever_the_times() {
    let (dir, repository) = repository(&[
        "m/1/model.onnx",
        "m/1/w.bin",
        "m/2/model.onnx",
        "m/labels.txt",
    ]);
    let package = open(&repository, "m", 1).unwrap();
    let line = |file: &str| tree::line(&Digest::of(format!("m/{file}").as_bytes()), file);
    let text = [line("1/model.onnx"), line("1/w.bin"), line("labels.txt")].concat();
    assert_eq!(package.digest, Digest::of(text.as_bytes()));
    assert_eq!(package.model_path, dir.path().join("m/1/model.onnx"));
    assert_eq!(package.bytes, 14 + 9 + 12);
    write(dir.path(), "m/1/w.bin", "m/1/w.bin");
    assert_eq!(
        open(&repository, "m", 1).unwrap().digest,
        package.digest,
        "written again, not changed"
    );
    write(dir.path(), "m/1/w.bin", "m/1/w.biN");
    assert_ne!(open(&repository, "m", 1).unwrap().digest, package.digest);
}

#[test]
fn the_model_is_the_file_that_the_configuration_names_or_model_onnx_or_the_only_one() {
    let cases: [(&[&str], &str, Result<&str, &str>); 7] = [
        (
            &["m/1/model.onnx", "m/1/other.onnx"],
            "",
            Ok("m/1/model.onnx"),
        ),
        (&["m/1/net.onnx"], "", Ok("m/1/net.onnx")),
        (
            &["m/1/model.onnx/model.onnx", "m/1/model.onnx/w.bin"],
            "",
            Ok("m/1/model.onnx/model.onnx"),
        ),
        (
            &["m/1/net.bin"],
            "default_model_filename: \"net.bin\"",
            Ok("m/1/net.bin"),
        ),
        (
            &["m/1/model.onnx"],
            "default_model_filename: \"net.onnx\"",
            Err("m/1/net.onnx is not there"),
        ),
        (&["m/1/a.onnx", "m/1/b.onnx"], "", Err("holds 2 models")),
        (
            &["m/1/readme"],
            "",
            Err("the folder m/1 holds no .onnx file"),
        ),
    ];
    for (files, config, expected) in cases {
        let (dir, repository) = repository(files);
        write(dir.path(), "m/config.pbtxt", config);
        match (open(&repository, "m", 1), expected) {
            (Ok(package), Ok(path)) => assert_eq!(package.model_path, dir.path().join(path)),
            (Err(failure), Err(words)) => assert!(failure.message.contains(words), "{failure}"),
            (got, expected) => panic!("{files:?}: {got:?}, expected {expected:?}"),
        }
    }
}

#[test]
fn model_yaml_and_labels_come_from_the_version_or_from_beside_it() {
    let (dir, repository) = repository(&["m/1/model.onnx"]);
    write(
        dir.path(),
        "m/config.pbtxt",
        "max_batch_size: 8 dynamic_batching { preferred_batch_size: 4 } \
         output { name: \"y\" label_filename: \"labels.txt\" }",
    );
    write(dir.path(), "m/labels.txt", "daisy\nrose\n");
    write(dir.path(), "m/model.yaml", "batching: {maxDelay: 1ms}");
    let package = open(&repository, "m", 1).unwrap();
    assert_eq!(package.settings.labels["y"], ["daisy", "rose"]);
    let batching = &package.settings.batching;
    assert_eq!((batching.max, &batching.preferred[..]), (Some(8), &[4][..]));
    assert_eq!(
        batching.max_delay,
        Some(std::time::Duration::from_millis(1))
    );
    write(dir.path(), "m/1/model.yaml", "batching: {maxBatch: 2}");
    let batching = open(&repository, "m", 1).unwrap().settings.batching;
    assert_eq!(
        (batching.max, batching.max_delay, batching.preferred.len()),
        (Some(2), None, 0)
    );
    fs::remove_file(dir.path().join("m/labels.txt")).unwrap();
    let failure = open(&repository, "m", 1).unwrap_err();
    assert!(
        failure
            .message
            .contains("labels.txt does not exist, although m/config.pbtxt names it"),
        "{failure}"
    );
}

#[test]
fn a_version_that_is_larger_than_the_limit_is_refused() {
    let (dir, _) = repository(&["m/1/model.onnx"]);
    let small = Repository::new(dir.path().to_path_buf(), None, 10);
    assert_eq!(
        open(&small, "m", 1).unwrap_err().reason,
        Reason::ModelTooLarge
    );
}

#[test]
fn files_that_changed_since_they_were_seen_are_not_given_out() {
    let (dir, repository) = repository(&["m/1/model.onnx"]);
    let seen = repository.mark("m", 1).unwrap();
    write(dir.path(), "m/1/model.onnx", "another");
    let failure = repository.open("m", 1, &seen).unwrap_err();
    assert_eq!(failure.reason, Reason::StoreUnavailable);
    assert!(
        failure.message.contains("change while they are read"),
        "{failure}"
    );
}

#[test]
fn what_would_stay_mapped_is_copied_where_files_may_change_and_the_copy_goes_with_its_last_holder()
{
    let cache = tempfile::tempdir().unwrap();
    let (dir, fixed) = repository(&[
        "m/1/model.onnx",
        "m/1/data/w.bin",
        "m/labels.txt",
        "one/1/model.onnx",
    ]);
    assert_eq!(
        open(&fixed, "m", 1).unwrap().model_path,
        dir.path().join("m/1/model.onnx")
    );
    let live =
        Repository::new(dir.path().to_path_buf(), None, 1 << 20).live(Cache::new(cache.path()));
    assert_eq!(
        open(&live, "one", 1).unwrap().model_path,
        dir.path().join("one/1/model.onnx")
    );
    let package = open(&live, "m", 1).unwrap();
    assert_eq!(package.digest, open(&fixed, "m", 1).unwrap().digest);
    let copied = package.model_path.with_file_name("data/w.bin");
    assert!(copied.starts_with(cache.path()) && package.model_path.is_file());
    fs::write(dir.path().join("m/1/data/w.bin"), "").unwrap();
    assert_eq!(fs::read_to_string(&copied).unwrap(), "m/1/data/w.bin");
    let held = package.files.clone();
    drop(package);
    assert!(copied.exists());
    drop(held);
    assert!(!copied.exists());
}

#[test]
fn a_name_from_a_client_stays_inside_the_repository() {
    let (dir, repository) = repository(&["repo/m/1/model.onnx", "secret/1/model.onnx"]);
    let inner = Repository::new(dir.path().join("repo"), None, 1 << 20);
    assert!(inner.look_at("m").unwrap().is_some());
    for name in ["../secret", "..", ".", "", "m/1", "/etc", "none"] {
        assert_eq!(inner.look_at(name), Ok(None), "{name:?}");
    }
    drop(repository);
}

#[test]
fn an_unreadable_root_is_a_failure_and_not_an_empty_repository() {
    let (dir, repository) = repository(&["m/1/model.onnx"]);
    drop(dir);
    assert_eq!(repository.look().unwrap_err().reason, Reason::ModelNotFound);
}
