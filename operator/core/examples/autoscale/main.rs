//! Simulates autoscaling, with the very code that decides it, beside other rules: how many requests miss the objective,
//! and how many replicas it takes.
//!
//! `cargo run --release -p ortolan-core --example autoscale -- [RUNS] [SCENARIO] [PICTURE]`: seeds a cell, 5 by default;
//! a part of a scenario's name, or "" for all of them; and where to write the picture. The same seeds give the same tables.

mod ours;
mod plot;
mod rules;
mod run;
mod source;
mod tables;
mod world;

fn main() -> Result<(), String> {
    let runs = match std::env::args().nth(1) {
        None => 5,
        Some(text) => text
            .parse::<u64>()
            .ok()
            .filter(|runs| *runs > 0)
            .ok_or(format!(
                "RUNS is `{text}`; write a whole number above 0, such as 5"
            ))?,
    };
    let only = std::env::args().nth(2);
    let rows = tables::rows(only.as_deref(), runs);
    if rows.is_empty() {
        return Err(format!(
            "no scenario is called `{}`; leave it out for all of them",
            only.unwrap_or_default()
        ));
    }
    println!("{}", tables::table(&rows));
    println!("{}", tables::front(&rows));
    if let Some(file) = std::env::args().nth(3) {
        let picture = plot::picture(&rows, "Azure");
        std::fs::write(&file, picture).map_err(|error| format!("{file}: {error}"))?;
    }
    Ok(())
}
