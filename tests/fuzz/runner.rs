//! Runs one target: its corpus as it is, then mutated.

use std::env;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use webmon::runtime::now;

use super::mutator::{Random, mutated};

/// The seed of a run of fixed length: the same inputs every time.
const FIXED_SEED: u64 = 1;

/// What is run, and on what.
pub(crate) struct Target<'t> {
    /// Its name, which is that of its test and of its folder in the corpus.
    pub(crate) name: &'t str,
    /// Words that its inputs are made of.
    pub(crate) words: &'t [&'t str],
    /// Inputs of a short run.
    pub(crate) cases: u64,
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")))
}

/// The files of the target's folder, by name, so that a seed means the same everywhere.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz_corpus").join(name);
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

impl Target<'_> {
    /// Gives inputs to `run`, which panics on a bad one.
    pub(crate) fn run(&self, run: impl Fn(&[u8])) {
        if let Some(file) = env::var_os("WEBMON_TEST_FUZZ_INPUT") {
            return run(&fs::read(file).unwrap());
        }
        let corpus = corpus(self.name);
        assert!(!corpus.is_empty(), "no corpus for {}", self.name);
        for input in &corpus {
            self.try_one(&run, input);
        }
        let seconds = number("WEBMON_TEST_FUZZ_SECONDS");
        let seed = number("WEBMON_TEST_FUZZ_SEED").unwrap_or(match seconds {
            Some(_) => u64::try_from(now().wall.as_nanosecond()).unwrap(),
            None => FIXED_SEED,
        });
        println!("{}: WEBMON_TEST_FUZZ_SEED={seed}", self.name);
        let start = now().mono;
        let is_over = |case| match seconds {
            Some(seconds) => now().mono - start >= Duration::from_secs(seconds),
            None => case == self.cases,
        };
        let mut case = 0;
        while !is_over(case) {
            // Each case has a seed of its own: one that fails doesn't need those before it.
            let mut random = Random::new(seed.wrapping_add(case));
            self.try_one(&run, &mutated(&corpus, self.words, &mut random));
            case += 1;
        }
        println!("{}: {case} inputs in {:?}", self.name, now().mono - start);
    }

    fn try_one(&self, run: impl Fn(&[u8]), input: &[u8]) {
        if catch_unwind(AssertUnwindSafe(|| run(input))).is_ok() {
            return;
        }
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{}", self.name));
        fs::write(&file, input).unwrap();
        panic!(
            "the input is in {0}; again: WEBMON_TEST_FUZZ_INPUT={0} cargo test --test fuzz {1}",
            file.display(),
            self.name
        );
    }
}
