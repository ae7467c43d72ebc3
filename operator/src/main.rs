//! The operator's process: command line in, exit code out.

use clap::Parser;
use ortolan_operator::{
    options::{Command, Options},
    run,
};

fn main() -> anyhow::Result<()> {
    match Options::parse().command {
        Command::Crd => {
            print!("{}", ortolan_crds::YAML);
            Ok(())
        }
        Command::Check(options) => run::runtime()?.block_on(run::check(&options)),
        Command::Run(options) => {
            run::logging(&options);
            run::runtime()?.block_on(run::run(*options))
        }
    }
}
