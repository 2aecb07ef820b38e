//! Which assertions of the specification's checklist are proven, and by which tests.
//!
//! A test that proves numbers says so in a comment directly above it: `// checklist: 12, 13`. `tests/run` keeps what the
//! tests printed in a folder and names it in `CAUSEWAY_TEST_RESULTS`; a number counts as covered when a test that names
//! it ran there and passed. Programs that are no Rust tests (SDKs, a browser) leave lines there, `PASS name
//! 212 184` for a test of theirs that passed. The numbers nobody shows yet stand in `tests/open.txt` with the reason.
//!
//! This fails for a number that is neither covered nor open, for one that is both, and for a test that names numbers and
//! did not pass. Without results, as under a plain `cargo test`, tests are taken to have passed.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program that reports and fails"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// A test that names numbers.
#[derive(Debug)]
struct Claim {
    /// Its crate's root, as cargo prints it: `src/lib.rs`, `tests/it/main.rs`.
    root: String,
    /// The module of its file below that root, `::` between.
    module: String,
    function: String,
    numbers: Vec<u32>,
}

impl Claim {
    fn name(&self) -> String {
        format!("{} {}{}{}", self.root, self.module, if self.module.is_empty() { "" } else { "::" }, self.function)
    }

    /// Whether a test's path, as the harness prints it, is this one; modules within the file may come between.
    fn is(&self, root: &str, path: &str) -> bool {
        let Some((modules, function)) = path.rsplit_once("::").or(Some(("", path))) else { return false };
        let below = modules.strip_prefix(&self.module);
        self.root == root
            && function == self.function
            && below.is_some_and(|b| b.is_empty() || b.starts_with("::") || self.module.is_empty())
    }
}

fn main() -> ExitCode {
    // Test runners that list tests first are told of one.
    if std::env::args().any(|argument| argument == "--list") {
        if !std::env::args().any(|argument| argument == "--ignored") {
            println!("checklist: test");
        }
        return ExitCode::SUCCESS;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let wanted = numbers_of_the_specification(root);
    let open = open_numbers(root);
    let results = std::env::var_os("CAUSEWAY_TEST_RESULTS").map(PathBuf::from);
    let mut wrong = Vec::new();
    let mut covered: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    let claims = claims(root, &mut wrong);
    let passed = results.as_deref().map(passed_tests);
    for claim in &claims {
        let ran = passed.as_ref().is_none_or(|passed| passed.iter().any(|(root, path)| claim.is(root, path)));
        if ran {
            for number in &claim.numbers {
                covered.entry(*number).or_default().push(claim.name());
            }
        } else {
            wrong.push(format!("{} names {:?} and did not pass", claim.name(), claim.numbers));
        }
    }
    let told = results.as_deref().map_or_else(|| promised_by_programs(root), told_by_programs);
    for (number, program) in told {
        covered.entry(number).or_default().push(program);
    }
    wrong.extend(
        covered
            .keys()
            .filter(|number| !wanted.contains(number))
            .map(|n| format!("{n} is no assertion of the checklist")),
    );
    for number in &wanted {
        match (covered.get(number), open.get(number)) {
            (None, None) => {
                wrong.push(format!("{number} is neither covered by a test that passed nor in tests/open.txt"));
            }
            (Some(by), Some(_)) if results.is_some() => {
                wrong.push(format!("{number} stands in tests/open.txt, and {} shows it", by[0]));
            }
            (Some(_) | None, _) => {}
        }
    }
    report(&wanted, &covered, &open, results.is_some());
    for line in &wrong {
        println!("checklist: WRONG: {line}");
    }
    if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn report(
    wanted: &BTreeSet<u32>,
    covered: &BTreeMap<u32, Vec<String>>,
    open: &BTreeMap<u32, String>,
    from_results: bool,
) {
    let shown: BTreeSet<u32> = wanted.iter().filter(|number| covered.contains_key(number)).copied().collect();
    let still_open: BTreeSet<u32> = wanted.difference(&shown).copied().collect();
    let source = if from_results { "by tests that ran and passed" } else { "by tests in the source (not run here)" };
    println!("checklist: {} of {} assertions covered {source}, {} open", shown.len(), wanted.len(), still_open.len());
    println!("checklist: covered {}", ranges(&shown));
    let mut by_reason: BTreeMap<&str, BTreeSet<u32>> = BTreeMap::new();
    for number in still_open {
        by_reason.entry(open.get(&number).map_or("no reason given", String::as_str)).or_default().insert(number);
    }
    for (reason, numbers) in by_reason {
        println!("checklist: open {}: {reason}", ranges(&numbers));
    }
}

/// `1-3, 7`.
fn ranges(numbers: &BTreeSet<u32>) -> String {
    let mut parts: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == *number => *last = *number,
            Some(_) | None => parts.push((*number, *number)),
        }
    }
    let parts: Vec<String> = parts
        .iter()
        .map(|(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") })
        .collect();
    parts.join(", ")
}

/// The numbered lines of the checklist at the specification's end.
fn numbers_of_the_specification(root: &Path) -> BTreeSet<u32> {
    let text = fs::read_to_string(root.join("src/docs/spec/websocket-api.md")).unwrap();
    let list = text.split("\n## Checklist").nth(1).unwrap_or_default();
    let numbers: BTreeSet<u32> = list.lines().filter_map(|line| line.split_once(". ")?.0.parse().ok()).collect();
    assert!(numbers.len() > 300, "the checklist has {} lines", numbers.len());
    numbers
}

/// `54` or `111-129`, spaces, the reason; `#` starts a comment.
fn open_numbers(root: &Path) -> BTreeMap<u32, String> {
    let text = fs::read_to_string(root.join("tests/open.txt")).unwrap();
    let mut open = BTreeMap::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (numbers, reason) = line.split_once(' ').unwrap_or_else(|| panic!("no reason in tests/open.txt: {line}"));
        for part in numbers.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            for number in first.parse().unwrap()..=last.parse::<u32>().unwrap() {
                let twice = open.insert(number, reason.trim().to_owned());
                assert!(twice.is_none(), "{number} stands twice in tests/open.txt");
            }
        }
    }
    open
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else { return found };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Every comment `// checklist: …` and the test below it.
fn claims(root: &Path, wrong: &mut Vec<String>) -> Vec<Claim> {
    let mut claims = Vec::new();
    for file in rust_files(&root.join("src")).into_iter().chain(rust_files(&root.join("tests"))) {
        let path = file.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
        if path == "tests/checklist.rs" || path.starts_with("tests/fuzz/") {
            continue;
        }
        let (crate_root, module) = place(&path);
        let text = fs::read_to_string(&file).unwrap();
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for (n, line) in lines.iter().enumerate() {
            let Some(list) = line.strip_prefix("// checklist:") else { continue };
            let numbers: Option<Vec<u32>> = list.split(',').map(|number| number.trim().parse().ok()).collect();
            let mut below = lines[n + 1..].iter().take(8);
            let is_test = below.clone().take_while(|line| line.starts_with("#[")).any(|line| line.contains("test"));
            let function = below.find_map(|line| line.split_once("fn ")?.1.split(['(', '<']).next());
            match (numbers, function) {
                (Some(numbers), Some(function)) if is_test && !numbers.is_empty() => {
                    let (root, module) = (crate_root.clone(), module.clone());
                    claims.push(Claim { root, module, function: function.to_owned(), numbers });
                }
                (Some(_) | None, _) => wrong.push(format!("{path}:{}: no numbers above a test: {line}", n + 1)),
            }
        }
    }
    assert!(claims.len() > 50, "{} tests name numbers", claims.len());
    claims
}

/// A file's crate root and its module there.
fn place(path: &str) -> (String, String) {
    let (root, below) = match path.split_once('/').unwrap() {
        ("src", below) => ("src/lib.rs".to_owned(), below),
        (_, below) => match below.split_once('/') {
            Some((folder, below)) => (format!("tests/{folder}/main.rs"), below),
            None => (path.to_owned(), ""),
        },
    };
    let module = below.trim_end_matches(".rs").trim_end_matches("/mod").replace('/', "::");
    (root, if ["lib", "main", "mod"].contains(&module.as_str()) { String::new() } else { module })
}

/// Crate root and path of every test that passed.
fn passed_tests(results: &Path) -> BTreeSet<(String, String)> {
    let mut passed = BTreeSet::new();
    let mut failed = BTreeSet::new();
    for file in texts(results) {
        let mut root = String::new();
        for line in file.1.lines() {
            if let Some(running) = line.trim_start().strip_prefix("Running ") {
                let name = running.strip_prefix("unittests ").unwrap_or(running);
                name.split(' ').next().unwrap_or_default().clone_into(&mut root);
            } else if let Some(test) = line.strip_prefix("test ")
                && let Some((path, outcome)) = test.rsplit_once(" ... ")
            {
                let test = (root.clone(), path.to_owned());
                if outcome == "ok" {
                    passed.insert(test)
                } else {
                    failed.insert(test)
                };
            }
        }
    }
    // A test that ran twice has to pass twice.
    passed.difference(&failed).cloned().collect()
}

/// Numbers that programs in other languages name in a comment, taken at their word where nothing was run.
fn promised_by_programs(root: &Path) -> Vec<(u32, String)> {
    let mut promised = Vec::new();
    for folder in ["tests/sdk", "tests/browser"].map(|folder| root.join(folder)).into_iter().filter(|f| f.is_dir()) {
        for (name, text) in texts(&folder) {
            let lists = text.lines().filter_map(|line| line.trim_start_matches(['#', '/']).strip_prefix(" checklist:"));
            let numbers = lists.flat_map(|list| list.split(',')).filter_map(|number| number.trim().parse().ok());
            promised.extend(numbers.map(|number| (number, name.clone())));
        }
    }
    promised
}

/// Numbers that other programs have shown.
fn told_by_programs(results: &Path) -> Vec<(u32, String)> {
    let mut told = Vec::new();
    for (_, text) in texts(results) {
        for line in text.lines().filter_map(|line| line.strip_prefix("PASS ")) {
            let mut words = line.split(' ');
            let name = words.next().unwrap_or_default();
            told.extend(words.filter_map(|number| number.parse().ok()).map(|number| (number, name.to_owned())));
        }
    }
    told
}

fn texts(folder: &Path) -> Vec<(String, String)> {
    let mut texts = Vec::new();
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() {
            continue;
        }
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        texts.push((name, String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned()));
    }
    texts
}
