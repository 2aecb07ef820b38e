//! Replays the kept corpora of `tests/fuzz` through the very functions that libFuzzer calls, then goes on with mutations
//! of them for a while: the same ones every time, as many as the time allows.
//!
//! `CAUSEWAY_FUZZ_SECONDS` is the time for each target's mutations, one second unless set. What fails is written to
//! `target/fuzz-findings/`; once it is understood it belongs in the corpus.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and the targets hold what must never be wrong"
)]

#[path = "fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "a library for the fuzz targets, a module here")]
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use targets::{TARGETS, Target};

/// One input may take this long, in a build without optimisation.
const PATIENCE: Duration = Duration::from_secs(10);
/// Mutated inputs grow no longer than this.
const MAX_BYTES: usize = 8 * 1024;

fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name);
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(&folder).expect("a corpus").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files.into_iter().map(|file| (file.clone(), std::fs::read(file).expect("an input"))).collect()
}

/// Gives one input to a target; says where it is to be found if it fails.
fn give(target: Target, input: &[u8], origin: &str) {
    let (name, function) = target;
    let started = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| function(input)));
    if outcome.is_ok() && started.elapsed() < PATIENCE {
        return;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/fuzz-findings");
    std::fs::create_dir_all(&folder).expect("a folder");
    let file = folder.join(name);
    std::fs::write(&file, input).expect("a file");
    panic!("{name} failed on {origin} after {:?}; the input is in {}", started.elapsed(), file.display());
}

#[test]
fn every_target_has_a_corpus_and_every_corpus_a_target() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz");
    let names = |path: &str| {
        let entries = std::fs::read_dir(folder.join(path)).expect("a folder");
        let mut names: Vec<String> =
            entries.filter_map(|entry| Some(entry.ok()?.path().file_stem()?.to_str()?.to_owned())).collect();
        names.sort();
        names
    };
    let mut expected: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    expected.sort_unstable();
    assert_eq!(names("corpus"), expected);
    assert_eq!(names("fuzz_targets"), expected);
}

#[test]
fn the_kept_corpora_pass() {
    for &target in TARGETS {
        for (file, input) in corpus(target.0) {
            give(target, &input, &file.display().to_string());
        }
    }
}

#[test]
fn mutations_of_the_corpora_pass() {
    let seconds = std::env::var("CAUSEWAY_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    for &target in TARGETS {
        let corpus: Vec<Vec<u8>> = corpus(target.0).into_iter().map(|(_, input)| input).collect();
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
        let until = Instant::now() + Duration::from_secs(seconds);
        let mut count = 0_u64;
        while Instant::now() < until {
            let input = mutate(&corpus, &mut dice);
            give(target, &input, &format!("mutation {count}"));
            count += 1;
        }
        println!("{}: {} kept inputs, {count} mutations", target.0, corpus.len());
    }
}

/// `SplitMix64`: small, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `bound`, which is not 0.
    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.roll() % bound as u64).expect("below a length")
    }

    /// A range within `length`, short ones more often.
    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.below(length + 1);
        let most = if self.below(4) == 0 { length - start } else { (length - start).min(8) };
        start..start + self.below(most + 1)
    }
}

/// Bytes that mean something to one grammar or another.
const TELLING: &[u8] = b"\0\n\r \"'\\{}[]():,.;=$#@%*?!&|<>-+0917aAzZ_/\x7f\x80\x81\x88\x89\xbf\xc1\xfe\xff";

fn mutate(corpus: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let mut input = corpus[dice.below(corpus.len())].clone();
    for _ in 0..=dice.below(6) {
        let here = dice.range(input.len());
        match dice.below(7) {
            0 if !input.is_empty() => {
                let at = dice.below(input.len());
                input[at] ^= 1 << dice.below(8);
            }
            1 if !input.is_empty() => {
                let at = dice.below(input.len());
                input[at] = TELLING[dice.below(TELLING.len())];
            }
            2 => input.insert(here.start, TELLING[dice.below(TELLING.len())]),
            3 => drop(input.drain(here)),
            4 => {
                let again = input[here.clone()].repeat(1 + dice.below(16));
                input.splice(here.end..here.end, again);
            }
            5 => {
                let other = &corpus[dice.below(corpus.len())];
                let part = other[dice.range(other.len())].to_vec();
                input.splice(here, part);
            }
            _ => input.truncate(dice.below(input.len() + 1)),
        }
        input.truncate(MAX_BYTES);
    }
    input
}
