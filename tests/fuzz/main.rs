//! Gives the inputs that libFuzzer makes to the target that `FUZZ_TARGET` names.
//!
//! With `FUZZ_SEEDS`, a directory, it writes the seeds of all targets there instead, and prints their names.

#![no_main]

use adsproxy::testing::fuzz::{Target, target, targets, write_seeds};
use std::{env, path::PathBuf, process, sync::LazyLock};

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = env::var("FUZZ_TARGET").expect("FUZZ_TARGET is the name of a target");
    target(&name).expect("there is a target of the name")
});

libfuzzer_sys::fuzz_target!(
    init: {
        if let Some(directory) = env::var_os("FUZZ_SEEDS") {
            write_seeds(&PathBuf::from(directory)).expect("the directory can be written");
            targets().iter().for_each(|target| println!("{}", target.name));
            process::exit(0);
        }
    },
    |input: &[u8]| (TARGET.run)(input)
);
