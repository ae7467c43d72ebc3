//! Runs the target that `ORTOLAN_FUZZ_TARGET` names.

#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::{Corpus, fuzz_target};
use ortolan_fuzz::{Target, named};

fuzz_target!(|bytes: &[u8]| -> Corpus {
    static TARGET: OnceLock<Target> = OnceLock::new();
    let target = TARGET.get_or_init(|| {
        let name = std::env::var("ORTOLAN_FUZZ_TARGET");
        named(&name.expect("ORTOLAN_FUZZ_TARGET names the target"))
    });
    (target.run)(bytes);
    Corpus::Keep
});
