//! What was found once, the seeds, and inputs made of them; `ORTOLAN_FUZZ_CASES` says how many for each target.

#![allow(missing_docs, clippy::unwrap_used)]

use std::{fs, path::Path, time::Instant};

use ortolan_fuzz::{TARGETS, Target, mutate, named};

/// So many for each target where nobody says otherwise: seconds.
const CASES: u64 = 2_000;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is {text:?}, expected a whole number")),
    )
}

fn found(target: &Target) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("regressions")
        .join(target.name);
    let Ok(listed) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let read = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.unwrap().path();
        (path.display().to_string(), fs::read(&path).unwrap())
    };
    listed.map(read).collect()
}

#[test]
fn what_was_found_once_is_not_found_again() {
    for target in TARGETS {
        for (path, bytes) in found(&target) {
            println!("{path}");
            (target.run)(&bytes);
        }
    }
}

#[test]
fn of_every_targets_seeds_most_are_taken() {
    for target in TARGETS {
        let seeds = (target.seeds)();
        let taken = seeds.iter().filter(|seed| (target.run)(seed)).count();
        println!("{}: {taken} of {}", target.name, seeds.len());
        assert!(
            taken * 3 >= seeds.len(),
            "{}: {taken} of {}",
            target.name,
            seeds.len()
        );
    }
}

#[test]
fn no_input_made_of_the_seeds_breaks_what_must_hold() {
    let (cases, first) = (
        number("ORTOLAN_FUZZ_CASES").unwrap_or(CASES),
        number("ORTOLAN_FUZZ_FIRST"),
    );
    let first = first.unwrap_or(0);
    let only = std::env::var("ORTOLAN_FUZZ_TARGET").ok();
    let targets = match &only {
        Some(name) => vec![named(name)],
        None => TARGETS.to_vec(),
    };
    for target in targets {
        let seeds = (target.seeds)();
        let (start, mut taken) = (Instant::now(), 0);
        for number in first..first + cases {
            let bytes = mutate::input(&seeds, number);
            let shown = Shown {
                target: target.name,
                number,
            };
            taken += u64::from((target.run)(&bytes));
            std::mem::forget(shown);
        }
        let seconds = start.elapsed().as_secs_f64();
        println!(
            "{:9} {cases:9} inputs, {taken:9} of them taken, {seconds:7.1} s, {} MiB resident",
            target.name,
            resident() >> 20
        );
    }
}

/// Says which input it was when the target panics.
struct Shown {
    target: &'static str,
    number: u64,
}

impl Drop for Shown {
    fn drop(&mut self) {
        println!(
            "again: ORTOLAN_FUZZ_TARGET={} ORTOLAN_FUZZ_FIRST={} ORTOLAN_FUZZ_CASES=1",
            self.target, self.number
        );
    }
}

fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = status
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or_default() * 4096
}
