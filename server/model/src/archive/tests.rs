//! Archives made here, byte for byte where a library would refuse to make them.

use std::io::Cursor;

use ::zip::write::SimpleFileOptions;
use proptest::prelude::*;

use super::*;

const MIB: u64 = 1024 * 1024;
const LIMIT: u64 = 512 * MIB;

/// A tar entry as it is, without the library's own checks.
fn raw_entry(name: &[u8], kind: u8, link: &str, content: &[u8]) -> Vec<u8> {
    let mut header = [0_u8; 512];
    header[..name.len()].copy_from_slice(name);
    header[100..108].copy_from_slice(b"0000644\0");
    header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
    header[156] = kind;
    header[157..157 + link.len()].copy_from_slice(link.as_bytes());
    header[257..265].copy_from_slice(b"ustar\x0000");
    checksum(&mut header);
    let mut bytes = header.to_vec();
    bytes.extend(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

/// The GNU magic and a real size of 0, with the checksum that follows.
fn as_gnu_sparse(header: &mut [u8]) {
    header[257..265].copy_from_slice(b"ustar  \0");
    header[483..495].copy_from_slice(b"00000000000\0");
    checksum(header);
}

fn checksum(header: &mut [u8]) {
    header[148..156].copy_from_slice(b"        ");
    let sum: u32 = header[..512].iter().map(|b| u32::from(*b)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn tar(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes: Vec<u8> = entries
        .iter()
        .flat_map(|(name, content)| raw_entry(name.as_bytes(), b'0', "", content))
        .collect();
    bytes.extend([0; 1024]);
    bytes
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = ::zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in entries {
        out.start_file(*name, SimpleFileOptions::default()).unwrap();
        out.write_all(content).unwrap();
    }
    out.finish().unwrap().into_inner()
}

/// Unpacks and answers the manifest. Whatever happens, nothing may lie beside the target.
fn unpacked(
    kind: Archive,
    bytes: &[u8],
    limit: u64,
) -> Result<(String, tempfile::TempDir), Failure> {
    let dir = tempfile::tempdir().unwrap();
    let (file, target) = (dir.path().join("archive"), dir.path().join("target"));
    fs::write(&file, bytes).unwrap();
    fs::create_dir(&target).unwrap();
    let result = unpack("m.archive", &file, kind, &target, limit, &Pulse::default());
    let mut names: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["archive", "target"]);
    result.map(|manifest| (manifest, dir))
}

fn refusal(kind: Archive, bytes: &[u8]) -> String {
    let failure = unpacked(kind, bytes, LIMIT)
        .map(|(manifest, _)| manifest)
        .unwrap_err();
    assert_eq!(failure.reason, Reason::ArchiveRefused, "{failure}");
    assert!(
        failure.message.starts_with("the archive m.archive "),
        "{failure}"
    );
    failure.message
}

#[test]
fn every_format_unpacks_to_the_same_files_and_their_manifest_is_the_trees() {
    let entries: [(&str, &[u8]); 5] = [
        ("net/model.onnx", b"onnx"),
        ("net/weights/w.bin", &[5; 100_000]),
        ("net/model.yaml", b"pipeline:\n"),
        ("net/._model.onnx", b"litter"),
        ("__MACOSX/net/._model.onnx", b"litter"),
    ];
    let plain = tar(&entries);
    let two_members = [gz(&plain[..700]), gz(&plain[700..])].concat();
    let archives = [
        (Archive::Tar, plain.clone()),
        (Archive::TarGz, gz(&plain)),
        (Archive::TarGz, two_members),
        (Archive::TarZst, zstd::encode_all(&plain[..], 3).unwrap()),
        (Archive::Zip, zip(&entries)),
    ];
    for (kind, bytes) in archives {
        let (manifest, dir) = unpacked(kind, &bytes, LIMIT).unwrap();
        let target = dir.path().join("target");
        let files = tree::list(&target, Some(&target)).unwrap();
        let paths: Vec<&str> = files.iter().map(|e| e.path.as_str()).collect();
        assert_eq!(
            paths,
            ["net/model.onnx", "net/model.yaml", "net/weights/w.bin"],
            "{kind:?}"
        );
        assert_eq!(
            tree::manifest(&target, &files, &Pulse::default()).unwrap(),
            manifest
        );
        assert_eq!(
            fs::read(target.join("net/weights/w.bin")).unwrap(),
            [5; 100_000]
        );
    }
}

#[test]
fn paths_of_more_than_a_hundred_bytes_survive_in_gnu_and_pax_tars() {
    let long = format!("{}/model.onnx", ["folder"; 20].join("/"));
    let mut gnu = ::tar::Builder::new(Vec::new());
    let mut header = ::tar::Header::new_gnu();
    header.set_size(4);
    gnu.append_data(&mut header, &long, &b"onnx"[..]).unwrap();
    let gnu = gnu.into_inner().unwrap();
    let record = format!(" path={long}\n");
    let length = record.len() + 3;
    let mut pax = raw_entry(b"pax", b'x', "", format!("{length}{record}").as_bytes());
    pax.extend(tar(&[("short", b"onnx")]));
    for bytes in [gnu, pax] {
        let (manifest, _) = unpacked(Archive::Tar, &bytes, LIMIT).unwrap();
        assert!(manifest.ends_with(&format!("  {long}\n")), "{manifest}");
    }
}

#[test]
fn entries_that_leave_the_folder_are_refused_in_every_format() {
    for (name, words) in [
        ("../evil.onnx", "`..`"),
        ("/tmp/evil.onnx", "absolute path"),
    ] {
        let entries: [(&str, &[u8]); 2] = [("model.onnx", b"onnx"), (name, b"evil")];
        let plain = tar(&entries);
        let archives = [
            (Archive::TarGz, gz(&plain)),
            (Archive::Tar, plain),
            (Archive::Zip, zip(&entries)),
        ];
        for (kind, bytes) in archives {
            let message = refusal(kind, &bytes);
            assert!(
                message.contains(words) && message.contains(name),
                "{message}"
            );
        }
    }
}

#[test]
fn links_devices_pipes_and_sparse_files_are_refused_by_name() {
    let cases = [
        (b'2', "a symbolic link"),
        (b'1', "a hard link"),
        (b'3', "a device"),
        (b'4', "a device"),
        (b'6', "a pipe"),
        (b'S', "a sparse file"),
        (b'Z', "an entry of an unknown kind"),
    ];
    for (kind, words) in cases {
        let mut bytes = raw_entry(b"weights.bin", kind, "/etc/passwd", b"");
        if kind == b'S' {
            as_gnu_sparse(&mut bytes);
        }
        bytes.extend([0; 1024]);
        let message = refusal(Archive::Tar, &bytes);
        assert!(
            message.contains(words) && message.contains("weights.bin"),
            "{message}"
        );
    }
    let record = "22 GNU.sparse.major=1\n";
    let mut pax = raw_entry(b"pax", b'x', "", record.as_bytes());
    pax.extend(tar(&[("w.bin", b"map")]));
    assert!(refusal(Archive::Tar, &pax).contains("--sparse"));
    let mut out = ::zip::ZipWriter::new(Cursor::new(Vec::new()));
    out.add_symlink("weights.bin", "/etc/passwd", SimpleFileOptions::default())
        .unwrap();
    let message = refusal(Archive::Zip, &out.finish().unwrap().into_inner());
    assert!(message.contains("a link or a device"), "{message}");
}

#[test]
fn the_same_path_twice_and_a_file_that_is_also_a_folder_are_refused() {
    assert!(refusal(Archive::Tar, &tar(&[("a", b"1"), ("./a", b"2")])).contains("holds a twice"));
    let both = tar(&[("a", b"1"), ("a/b", b"2")]);
    assert!(refusal(Archive::Tar, &both).contains("as a file and as a folder"));
    let both = tar(&[("a/b", b"1"), ("a", b"2")]);
    assert!(refusal(Archive::Tar, &both).contains("as a file and as a folder"));
}

#[test]
fn more_than_the_limit_never_reaches_the_disk() {
    let bytes = tar(&[("model.onnx", &vec![1; 3 * MIB as usize])]);
    for (kind, bytes) in [(Archive::Tar, bytes.clone()), (Archive::TarGz, gz(&bytes))] {
        let failure = unpacked(kind, &bytes, 2 * MIB).map(|_| ()).unwrap_err();
        assert_eq!(failure.reason, Reason::ModelTooLarge);
        assert!(
            failure
                .message
                .contains("the limit is 2.00 MiB (--max-model-bytes)"),
            "{failure}"
        );
    }
    let bytes = zip(&[("model.onnx", &vec![1; 3 * MIB as usize])]);
    let failure = unpacked(Archive::Zip, &bytes, 2 * MIB)
        .map(|_| ())
        .unwrap_err();
    assert!(failure.message.contains("--max-model-bytes"), "{failure}");
}

#[test]
fn a_bomb_is_known_by_its_ratio() {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let zeros = vec![0; MIB as usize];
    let size = 100 * MIB;
    let mut entry = raw_entry(b"model.onnx", b'0', "", b"");
    entry[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    checksum(&mut entry);
    out.write_all(&entry).unwrap();
    for _ in 0..100 {
        out.write_all(&zeros).unwrap();
    }
    let message = refusal(Archive::TarGz, &out.finish().unwrap());
    assert!(
        message.contains("200 times its size") && message.contains("a bomb"),
        "{message}"
    );
}

#[test]
fn a_long_name_of_megabytes_is_not_read_into_memory() {
    let mut bytes = raw_entry(b"././@LongLink", b'L', "", &vec![b'a'; 3 * MIB as usize]);
    bytes.extend(tar(&[("model.onnx", b"onnx")]));
    let message = refusal(Archive::Tar, &bytes);
    assert!(message.contains("a header of more than"), "{message}");
}

#[test]
fn too_many_entries_are_refused() {
    let one = raw_entry(b"folder/", b'5', "", b"");
    let mut bytes = one.repeat(MAX_FILES + 1);
    bytes.extend([0; 1024]);
    assert!(refusal(Archive::Tar, &bytes).contains("more than 10000 entries"));
}

#[test]
fn truncated_and_damaged_archives_are_named_as_such() {
    // Content that does not compress, so that half of the file is half of the content.
    let noise: Vec<u8> = (0..200_000_u64)
        .map(|i| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8)
        .collect();
    let entries: [(&str, &[u8]); 1] = [("model.onnx", &noise)];
    let plain = tar(&entries);
    let mut damaged = gz(&plain);
    let end = damaged.len() - 6;
    damaged[end] ^= 1;
    let half = |bytes: Vec<u8>| bytes[..bytes.len() / 2].to_vec();
    let cases = [
        (Archive::TarGz, half(gz(&plain))),
        (
            Archive::TarZst,
            half(zstd::encode_all(&plain[..], 3).unwrap()),
        ),
        (Archive::Tar, half(plain.clone())),
        (Archive::Zip, half(zip(&entries))),
        (Archive::TarGz, damaged),
    ];
    for (kind, bytes) in cases {
        let message = refusal(kind, &bytes);
        assert!(
            message.contains("broken or truncated"),
            "{kind:?} {message}"
        );
    }
    let message = refusal(Archive::TarGz, &gz(b"\x08\x08 a bare model, compressed"));
    assert!(message.contains("no tar archive"), "{message}");
}

#[test]
fn an_encrypted_zip_is_refused_with_what_to_do() {
    let mut bytes = zip(&[("model.onnx", b"onnx")]);
    // The flag of encryption, in the local header and in the central directory.
    let central = bytes.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
    bytes[6] |= 1;
    bytes[central + 8] |= 1;
    assert!(refusal(Archive::Zip, &bytes).contains("without a password"));
}

#[test]
fn a_full_disk_while_unpacking_is_not_the_archives_fault() {
    let dir = tempfile::tempdir().unwrap();
    let mount = |args: &[&str]| {
        let ran = std::process::Command::new("mount")
            .args(args)
            .arg(dir.path())
            .output();
        ran.is_ok_and(|out| out.status.success())
    };
    if !mount(&["-t", "tmpfs", "-o", "size=1m", "tmpfs"]) {
        println!("skipped: a tmpfs of one MiB needs the right to mount");
        return;
    }
    let archive = tempfile::NamedTempFile::new().unwrap();
    fs::write(
        archive.path(),
        gz(&tar(&[("model.onnx", &vec![1; 3 * MIB as usize])])),
    )
    .unwrap();
    let target = dir.path().join("target");
    fs::create_dir(&target).unwrap();
    let result = unpack(
        "m.archive",
        archive.path(),
        Archive::TarGz,
        &target,
        LIMIT,
        &Pulse::default(),
    );
    let _ = std::process::Command::new("umount")
        .arg(dir.path())
        .status();
    let failure = result.unwrap_err();
    assert_eq!(failure.reason, Reason::OutOfSpace, "{failure}");
    assert!(failure.message.contains("target/model.onnx"), "{failure}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_bytes_make_any_unpacker_panic(noise in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let cases: [(Archive, &[u8]); 4] = [
            (Archive::Tar, b""),
            (Archive::TarGz, &[0x1f, 0x8b, 8, 0]),
            (Archive::TarZst, &[0x28, 0xb5, 0x2f, 0xfd]),
            (Archive::Zip, b"PK\x03\x04"),
        ];
        for (kind, magic) in cases {
            let _ = unpacked(kind, &[magic, &noise].concat(), LIMIT);
        }
    }

    #[test]
    fn one_wrong_byte_anywhere_never_panics_nor_writes_outside(
        at in any::<prop::sample::Index>(), value: u8, kind in 0..3
    ) {
        let entries: [(&str, &[u8]); 2] = [("a/model.onnx", b"onnx"), ("labels.txt", b"daisy")];
        let (kind, mut bytes) = match kind {
            0 => (Archive::Tar, tar(&entries)),
            1 => (Archive::TarGz, gz(&tar(&entries))),
            _ => (Archive::Zip, zip(&entries)),
        };
        let at = at.index(bytes.len());
        bytes[at] = value;
        let _ = unpacked(kind, &bytes, LIMIT);
    }
}
