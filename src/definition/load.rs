//! From a folder or a file to a snapshot: reading, checking everything, and telling whether something changed.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use serde_json::Value;

use super::Snapshot;
use super::compile::{Claims, compile};
use super::file::ApiFile;
use crate::document::{self, Document, Environment, MAX_FILE_BYTES, Problems, Report};

/// Most definition files of a folder.
const MAX_FILES: usize = 1_000;
/// Endings of a definition file.
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];

static SCHEMA: LazyLock<Value> = LazyLock::new(document::generate::<ApiFile>);

/// The JSON Schema of a definition file: what editors check with is what [`load`] checks with.
pub fn json_schema() -> Value {
    SCHEMA.clone()
}

/// Loads a definition file, or every `*.yaml`, `*.yml` and `*.json` directly in a folder, hidden ones apart.
///
/// References `${file:path}` are relative to the file they stand in; `environment` answers `${env:NAME}`.
///
/// # Errors
/// Everything that is wrong in all files together, sorted by file and place.
pub fn load(path: &Path, environment: Environment<'_>) -> Result<Snapshot, Problems> {
    let whole = |message: String| Problems::of_file(&path.to_string_lossy(), message);
    let files = files(path).map_err(|error| whole(format!("cannot be read: {error}")))?;
    if files.is_empty() {
        return Err(whole("no definition in this folder, expected a file `*.yaml`, `*.yml` or `*.json`".to_owned()));
    }
    if files.len() > MAX_FILES {
        return Err(whole(format!("{} definitions, expected at most {MAX_FILES}", files.len())));
    }
    let mut loader = Loader::new(environment);
    for file in files {
        let name = file.to_string_lossy();
        match read(&file) {
            Ok(bytes) => loader.add(&name, file.parent().unwrap_or(Path::new("")), &bytes),
            Err(message) => loader.problems.append(Problems::of_file(&name, message)),
        }
    }
    loader.finish()
}

/// Loads definitions from memory: names, as messages show them, and texts. `${file:path}` is relative to the working folder.
///
/// # Errors
/// As [`load`].
pub fn load_texts<'a>(
    texts: impl IntoIterator<Item = (&'a str, &'a str)>,
    environment: Environment<'_>,
) -> Result<Snapshot, Problems> {
    let mut loader = Loader::new(environment);
    for (name, text) in texts {
        loader.add(name, Path::new(""), text.as_bytes());
    }
    loader.finish()
}

/// A value that changes when a definition does: from names, lengths and times of change, without reading a file.
pub fn fingerprint(path: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    match files(path) {
        Ok(files) => {
            for file in files {
                let state = std::fs::metadata(&file).map(|meta| (meta.len(), meta.modified().ok()));
                (file, state.ok()).hash(&mut hasher);
            }
        }
        Err(error) => error.kind().hash(&mut hasher),
    }
    hasher.finish()
}

/// The files to load, in order of name.
fn files(path: &Path) -> std::io::Result<BTreeSet<PathBuf>> {
    if !std::fs::metadata(path)?.is_dir() {
        return Ok(BTreeSet::from([path.to_owned()]));
    }
    let mut files = BTreeSet::new();
    for entry in std::fs::read_dir(path)? {
        let file = entry?.path();
        let is_hidden = file.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
        let is_definition = file.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending == *known));
        if is_definition && !is_hidden && file.is_file() {
            files.insert(file);
        }
    }
    Ok(files)
}

/// The bytes of a file that is not too large, however much it grows meanwhile.
fn read(file: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(file).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes));
    match opened {
        Ok(length) if length as u64 > MAX_FILE_BYTES => {
            Err(format!("too large, expected at most {MAX_FILE_BYTES} bytes"))
        }
        Ok(_) => Ok(bytes),
        Err(error) => Err(format!("cannot be read: {error}")),
    }
}

struct Loader<'e> {
    environment: Environment<'e>,
    claims: Claims,
    snapshot: Snapshot,
    problems: Problems,
}

impl<'e> Loader<'e> {
    fn new(environment: Environment<'e>) -> Self {
        Self { environment, claims: Claims::default(), snapshot: Snapshot::default(), problems: Problems::new() }
    }

    fn add(&mut self, name: &str, folder: &Path, bytes: &[u8]) {
        let mut report = Report::new(name);
        let document = Document::<ApiFile>::read(bytes, &SCHEMA, folder, self.environment, &mut report);
        let api = document.and_then(|document| compile(&document, &mut self.claims, &mut report));
        self.snapshot.apis.extend(api.map(Arc::new));
        self.problems.append(report.into_problems());
    }

    fn finish(mut self) -> Result<Snapshot, Problems> {
        self.snapshot.apis.sort_by(|a, b| a.id.cmp(&b.id));
        self.problems.or_ok(self.snapshot)
    }
}
