//! The shape of the source, checked: floors, doors, file sizes, links in the documentation, dependencies in use.
//!
//! A new module fails here until it has a floor, a package that is used in a second place until that is made a choice.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Modules by floor, the lowest first: a module imports only from floors below its own.
const FLOORS: &[&[&str]] = &[
    &["ids", "clock", "message", "fault", "limits", "units", "secret", "memory", "tasks"],
    &["lang", "telemetry", "document"],
    &["routing", "context"],
    &["session", "upstream", "definition"],
    &["cluster"],
    &["integration"],
    &["gateway"],
    &["server"],
    &["config"],
    &["app"],
    &["main", "lib"],
];

/// Imports within the ground floor, from later to earlier in its list only, so that no circle can form.
const GROUND: &[&str] = &["clock", "units", "secret", "limits", "memory", "message", "ids", "fault", "tasks"];

/// Foreign packages, and the places that may name them.
const DOORS: &[(&str, &[&str])] = &[
    ("axum", &["server/"]),
    ("hyper", &["server/", "upstream/"]),
    ("hyper_util", &["server/", "upstream/"]),
    ("hyper_rustls", &["upstream/"]),
    ("httparse", &["server/wire.rs"]),
    ("form_urlencoded", &["server/handshake.rs", "server/callback.rs"]),
    ("ipnet", &["server/networks.rs"]),
    ("ppp", &["server/proxy.rs"]),
    ("tokio_tungstenite", &["session/transport.rs"]),
    ("mio", &["session/"]),
    ("slab", &["session/lot.rs", "cluster/link/"]),
    ("flate2", &["session/deflate/"]),
    ("dashmap", &["session/hub.rs"]),
    ("redis", &["cluster/redis/"]),
    ("rustls", &["cluster/link/", "cluster/redis/dial.rs", "session/tls/", "server/certificates.rs", "upstream/"]),
    ("rustls_native_certs", &["cluster/redis/dial.rs", "upstream/"]),
    ("jsonpath_rust", &["lang/jsonpath/"]),
    ("saphyr_parser", &["document/parse.rs"]),
    ("schemars", &["document/", "definition/file.rs", "config/options.rs", "units.rs"]),
    ("prometheus_client", &["telemetry/"]),
    ("tracing_subscriber", &["telemetry/"]),
    ("clap", &["config/", "main.rs"]),
    ("siphasher", &["ids.rs"]),
    ("rand", &["ids.rs", "cluster/link/peers.rs"]),
    ("tokio_rustls", &["cluster/link/", "cluster/redis/dial.rs"]),
    // Also the name of the TLS library's provider made of it.
    (
        "ring",
        &["cluster/link/credentials.rs", "cluster/redis/dial.rs", "server/certificates.rs", "upstream/connect.rs"],
    ),
    ("rcgen", &["cluster/link/credentials.rs", "server/certificates.rs"]),
    ("rustix", &["app/"]),
];

/// Lines of code a file may have before it must say in its first lines why it has more.
const LONG: usize = 500;

struct Source {
    /// Below `src/`, with `/`.
    path: String,
    text: String,
}

impl Source {
    fn is_test(&self) -> bool {
        self.path.ends_with("tests.rs") || self.path.contains("/tests/")
    }

    /// The top-level module it belongs to.
    fn module(&self) -> &str {
        self.path.split('/').next().unwrap().trim_end_matches(".rs")
    }

    /// Its lines of product code: no comments, no blank lines, nothing after `#[cfg(test)]` on a module in it.
    fn code(&self) -> Vec<(usize, &str)> {
        let mut lines = Vec::new();
        let mut all = self.text.lines().enumerate().peekable();
        while let Some((n, line)) = all.next() {
            let next = all.peek().map_or("", |(_, next)| next.trim_start());
            if line.trim() == "#[cfg(test)]" && next.contains("mod ") && next.ends_with('{') {
                break;
            }
            let code = line.trim();
            if !code.is_empty() && !code.starts_with("//") {
                lines.push((n + 1, line.split(" // ").next().unwrap()));
            }
        }
        lines
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below a folder whose name ends so, and that is not made by a build.
fn files(folder: &Path, end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else { return found };
    for entry in entries {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !["target", "node_modules", ".git"].contains(&name.as_str()) {
                found.extend(files(&path, end));
            }
        } else if name.ends_with(end) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn sources() -> Vec<Source> {
    let source = root().join("src");
    let read = |path: &PathBuf| Source {
        path: path.strip_prefix(&source).unwrap().to_string_lossy().replace('\\', "/"),
        text: fs::read_to_string(path).unwrap(),
    };
    let found: Vec<Source> = files(&source, ".rs").iter().map(read).collect();
    assert!(found.len() > 50, "the source is elsewhere");
    found
}

fn none(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

/// The first names after each `crate::` of a line, `crate::{a, b::c}` included.
fn crate_paths(line: &str) -> Vec<&str> {
    let word = |text: &str| text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let mut names = Vec::new();
    for rest in line.split("crate::").skip(1) {
        if let Some(list) = rest.strip_prefix('{') {
            let list = list.split('}').next().unwrap();
            names.extend(list.split(',').map(str::trim).map(|item| &item[..word(item)]));
        } else {
            names.push(&rest[..word(rest)]);
        }
    }
    names
}

#[test]
fn every_module_has_a_floor_and_every_floor_its_modules() {
    let on_floors: Vec<&str> = FLOORS.iter().copied().flatten().copied().collect();
    let sources = sources();
    let missing: Vec<String> =
        sources.iter().map(Source::module).filter(|module| !on_floors.contains(module)).map(str::to_owned).collect();
    none("modules without a floor", &missing);
    for module in on_floors {
        assert!(sources.iter().any(|source| source.module() == module), "no module `{module}`: take it from its floor");
    }
    let mut ground = GROUND.to_vec();
    let mut floor = FLOORS[0].to_vec();
    ground.sort_unstable();
    floor.sort_unstable();
    assert_eq!(ground, floor);
}

#[test]
fn modules_only_look_down() {
    let floor = |module: &str| FLOORS.iter().position(|floor| floor.contains(&module));
    let order = |module: &str| GROUND.iter().position(|name| *name == module);
    let mut looks_up = Vec::new();
    for source in sources() {
        let own = source.module();
        for (n, line) in source.code() {
            for other in crate_paths(line) {
                if other == own || own == "main" || own == "lib" {
                    continue;
                }
                let Some(below) = floor(other) else {
                    looks_up.push(format!("src/{}:{n}: `{other}` is no module with a floor", source.path));
                    continue;
                };
                let on_the_ground = below == 0 && floor(own) == Some(0) && order(other) < order(own);
                if Some(below) >= floor(own) && !on_the_ground {
                    looks_up.push(format!("src/{}:{n}: {own} imports {other}", source.path));
                }
            }
        }
    }
    none("imports that look up or sideways", &looks_up);
}

#[test]
fn every_package_has_its_door() {
    let mut elsewhere = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        for (n, line) in source.code() {
            for (package, doors) in DOORS {
                let named = line.match_indices(&format!("{package}::")).any(|(at, _)| {
                    !line[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == ':')
                });
                if named && !doors.iter().any(|door| source.path.starts_with(door)) {
                    elsewhere.push(format!("src/{}:{n}: {package} belongs to {doors:?}", source.path));
                }
            }
        }
    }
    none("packages named outside their door", &elsewhere);
    let all: String = sources().into_iter().map(|source| source.text).collect();
    for (package, _) in DOORS {
        assert!(all.contains(&format!("{package}::")), "nobody names {package}: take its door away");
    }
}

#[test]
fn every_dependency_is_used() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let section = manifest.split("\n[dependencies]\n").nth(1).unwrap().split("\n[").next().unwrap();
    let all: String = sources().into_iter().map(|source| source.text).collect();
    let names = section.lines().filter_map(|line| line.split([' ', '=']).next()).filter(|name| !name.is_empty());
    let unused: Vec<String> =
        names.filter(|name| !all.contains(&format!("{}::", name.replace('-', "_")))).map(str::to_owned).collect();
    none("dependencies that nothing names", &unused);
}

#[test]
fn a_file_is_a_page() {
    let mut long = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        let lines = source.code().len();
        let introduction: String = source.text.lines().take_while(|line| line.starts_with("//!")).collect();
        if lines > LONG && !introduction.contains("long") {
            long.push(format!(
                "src/{}: {lines} lines of code, and no word in its first lines why it is long",
                source.path
            ));
        }
    }
    none("files too long", &long);
}

#[test]
fn every_file_says_first_what_it_is_for() {
    let silent: Vec<String> =
        sources().iter().filter(|source| !source.text.starts_with("//! ")).map(|source| source.path.clone()).collect();
    none("files that do not begin with a sentence", &silent);
}

#[test]
fn nothing_is_left_for_later_and_no_machine_is_named() {
    // Put together, so that this file does not name them itself.
    let words = [
        ["TO", "DO"],
        ["FIX", "ME"],
        ["XX", "X:"],
        ["unimple", "mented!"],
        ["to", "do!("],
        ["/ho", "me/"],
        ["/ro", "ot/"],
    ];
    let words = words.map(|parts| parts.concat());
    let mut found = Vec::new();
    for folder in ["src", "tests", "load-tests", "routes"] {
        for path in [".rs", ".md", ".yaml", ".toml", ".sh", ".py", ".mjs", ".js", "run"]
            .iter()
            .flat_map(|end| files(&root().join(folder), end))
            .filter(|path| {
                !path.ends_with("src/docs/spec/websocket-api.md") && !path.ends_with("src/docs/spec/rest-api.md")
            })
        {
            let Ok(text) = fs::read_to_string(&path) else { continue };
            for (n, line) in text.lines().enumerate() {
                for word in words.iter().filter(|word| line.contains(word.as_str())) {
                    found.push(format!("{}:{}: {word}", path.strip_prefix(root()).unwrap().display(), n + 1));
                }
            }
        }
    }
    none("left for later, or a path of one machine", &found);
}

/// The targets of a page's links, and where they stand.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut in_code = false;
    for (n, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if !in_code {
            found.extend(line.split("](").skip(1).filter_map(|rest| Some((n + 1, rest.split(')').next()?))));
        }
    }
    found
}

/// A heading as the anchor that links to it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    kept.chars().filter(|c| c.is_alphanumeric() || "- _".contains(*c)).map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn no_link_in_the_documentation_is_dead() {
    let mut pages: Vec<PathBuf> = files(&root().join("src/docs"), ".md");
    pages.extend(files(&root().join("load-tests"), ".md"));
    pages.push(root().join("README.md"));
    let mut dead = Vec::new();
    for page in pages.iter().filter(|page| page.exists()) {
        let text = fs::read_to_string(page).unwrap();
        for (n, link) in links(&text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (file, fragment) = link.split_once('#').map_or((link, None), |(file, part)| (file, Some(part)));
            let target = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            let headings = |text: String| text.lines().filter(|l| l.starts_with('#')).map(anchor).collect::<Vec<_>>();
            let there = match fragment {
                _ if !target.exists() => false,
                Some(part) if target.extension().is_some_and(|end| end == "md") => {
                    headings(fs::read_to_string(&target).unwrap()).iter().any(|heading| heading == part)
                }
                Some(_) | None => true,
            };
            if !there {
                dead.push(format!("{}:{n}: {link}", page.strip_prefix(root()).unwrap().display()));
            }
        }
    }
    none("dead links", &dead);
}

/// Files that documentation and comments name in backticks: `src/…`, `tests/…`, `docs/…` and the like.
#[test]
fn files_that_are_named_exist() {
    let mut missing = BTreeMap::new();
    let mut texts: Vec<PathBuf> = files(&root().join("src"), ".rs");
    texts.extend(files(&root().join("src/docs"), ".md"));
    texts.push(root().join("README.md"));
    for path in texts.iter().filter(|path| path.exists() && !path.ends_with("changelog.md")) {
        if path.parent().unwrap().ends_with("spec") {
            continue;
        }
        let text = fs::read_to_string(path).unwrap();
        for name in text.split('`').skip(1).step_by(2) {
            let is_path =
                ["src/", "tests/", "docs/", "routes/", "load-tests/"].iter().any(|start| name.starts_with(start));
            let plain = name.chars().all(|c| c.is_alphanumeric() || "/._-".contains(c));
            let below = if name.starts_with("docs/") { root().join("src") } else { root().to_owned() };
            if is_path && plain && !below.join(name).exists() {
                missing.insert(name.to_owned(), path.strip_prefix(root()).unwrap().display().to_string());
            }
        }
    }
    let missing: Vec<String> = missing.into_iter().map(|(name, by)| format!("{name}, named by {by}")).collect();
    none("files that are named and not there", &missing);
}
