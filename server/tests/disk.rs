//! A disk that is too small, as the process tells of it.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::{
    io::{Read, Write},
    net::TcpListener,
    path::Path,
};

use support::{fails_at, fails_limited};
use tempfile::tempdir;

/// A store that sends four MiB and says beforehand how many, or does not.
fn store(tells_the_size: bool) -> String {
    const BYTES: usize = 4 << 20;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let length = match tells_the_size {
                true => format!("content-length: {BYTES}\r\n"),
                false => String::new(),
            };
            let head = format!("HTTP/1.1 200 OK\r\n{length}connection: close\r\n\r\n");
            // The client may leave before the end: that is what is tested.
            let _ = stream
                .write_all(head.as_bytes())
                .and_then(|()| stream.write_all(&vec![1; BYTES]));
        }
    });
    format!("http://{address}/m.onnx")
}

#[test]
fn a_disk_that_fills_up_during_a_download_ends_the_start_with_its_code_and_the_sizes() {
    // No file larger than 1 MiB can be written: the same to a process as a full disk, without a disk.
    let full = "trap '' XFSZ; ulimit -f 1024";
    for (tells_the_size, words) in [(true, "no space for 4.00 MiB at "), (false, "no space at ")] {
        let uri = store(tells_the_size);
        let ended = fails_limited(tempdir().unwrap(), Path::new(&uri), &[], full);
        let told = ended.termination_log;
        assert_eq!(ended.code, 17, "{told}");
        let sentence = told.strip_prefix("OutOfSpace: ").unwrap_or_default();
        assert!(sentence.starts_with(words), "{told}");
        assert!(
            sentence.contains("a download needs the size of its file"),
            "{told}"
        );
    }
}

#[test]
fn a_download_over_the_limit_of_the_scratch_space_is_refused_though_the_disk_has_room() {
    for tells_the_size in [true, false] {
        let uri = store(tells_the_size);
        let bound = ["--max-cache-bytes", "3000000"];
        let ended = fails_at(tempdir().unwrap(), Path::new(&uri), &bound);
        let told = ended.termination_log;
        assert_eq!(ended.code, 17, "{told}");
        assert!(
            told.starts_with("OutOfSpace: no space for http://127.0.0.1:")
                && told.contains("all together may take 2.86 MiB (--max-cache-bytes;"),
            "{told}"
        );
    }
    // The last byte that is allowed: then the file is read, and is no model.
    let bound = ["--max-cache-bytes", "4194304"];
    let ended = fails_at(tempdir().unwrap(), Path::new(&store(true)), &bound);
    assert_eq!(ended.code, 15, "{}", ended.termination_log);
}
