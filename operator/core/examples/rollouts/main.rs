//! Simulates rollouts, with the very code that decides them: how often a healthy candidate is rolled
//! back, how soon a worse one is caught, and how many bad requests get through until then.
//!
//! `cargo run --release -p ortolan-core --example rollouts -- [RUNS]`: runs a cell, 1000 by default.
//! The same seed gives the same tables.

mod flagger;
mod run;
mod tables;
mod world;

fn main() -> Result<(), String> {
    let runs = match std::env::args().nth(1) {
        None => 1_000,
        Some(text) => text
            .parse::<u32>()
            .ok()
            .filter(|runs| *runs > 0)
            .ok_or(format!(
                "RUNS is `{text}`; write a whole number above 0, such as 1000"
            ))?,
    };
    println!("{runs} runs a cell\n");
    println!("{}", tables::healthy(runs));
    println!("{}", tables::worse(runs));
    println!("{}", tables::alone(runs));
    Ok(())
}
