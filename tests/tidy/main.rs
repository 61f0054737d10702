//! Keeps the house in order: who may depend on whom, headers, file lengths, lints.
//!
//! It reads manifests and sources of this workspace and runs nothing. What clippy and cargo-deny can check is left to
//! them.
#![expect(clippy::unwrap_used, reason = "a test binary: a panic is a finding")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The longest a source file may be; most are under a third of it.
const LONGEST_FILE: usize = 700;

/// Which of our packages a package may depend on. Arrows point inwards; adapters never see each other.
const ALLOWED_EDGES: [(&str, &[&str]); 14] = [
    ("cluster-types", &[]),
    ("cluster-core", &["cluster-types"]),
    ("cluster-store", &["cluster-types", "cluster-core"]),
    ("cluster-net", &["cluster-types", "cluster-core"]),
    ("cluster-dial", &["cluster-types"]),
    ("cluster-ipfs", &["cluster-types", "cluster-core"]),
    ("cluster-api", &["cluster-types", "cluster-core"]),
    ("cluster-client", &["cluster-types", "cluster-dial"]),
    ("cluster-peer", &["cluster-types", "cluster-core", "cluster-store", "cluster-net", "cluster-ipfs", "cluster-api"]),
    ("cluster-terminal", &[]),
    ("cluster-daemon", &["cluster-types", "cluster-client", "cluster-peer", "cluster-terminal"]),
    ("cluster-ctl", &["cluster-types", "cluster-client", "cluster-terminal"]),
    ("cluster-follow", &["cluster-types", "cluster-client", "cluster-peer", "cluster-terminal"]),
    (
        "cluster-tests",
        &[
            "cluster-types",
            "cluster-core",
            "cluster-store",
            "cluster-net",
            "cluster-ipfs",
            "cluster-api",
            "cluster-client",
            "cluster-peer",
        ],
    ),
];

/// Crates for programs; in a library they would hide what can go wrong.
const ONLY_IN_BINARIES: [(&str, &[&str]); 2] = [
    ("anyhow", &["cluster-daemon", "cluster-ctl", "cluster-follow", "cluster-tests"]),
    ("clap", &["cluster-daemon", "cluster-ctl", "cluster-follow", "cluster-terminal"]),
];

/// A package of the workspace.
struct Package {
    name: String,
    folder: PathBuf,
    manifest: toml::Table,
}

impl Package {
    /// The names in one of its dependency tables.
    fn dependencies(&self, table: &str) -> Vec<&str> {
        self.manifest
            .get(table)
            .and_then(toml::Value::as_table)
            .into_iter()
            .flatten()
            .map(|(k, _)| k.as_str())
            .collect()
    }
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn packages() -> Vec<Package> {
    let root: toml::Table = fs::read_to_string(workspace().join("Cargo.toml")).unwrap().parse().unwrap();
    let members = root["workspace"]["members"].as_array().unwrap();
    members
        .iter()
        .map(|member| {
            let folder = workspace().join(member.as_str().unwrap());
            let manifest: toml::Table = fs::read_to_string(folder.join("Cargo.toml")).unwrap().parse().unwrap();
            let name = manifest["package"]["name"].as_str().unwrap().to_owned();
            Package { name, folder, manifest }
        })
        .collect()
}

/// Every Rust source of the workspace, generated ones aside.
fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![workspace()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if entry.file_type().unwrap().is_dir() {
                if !name.starts_with('.') && !name.starts_with("target") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn shown(path: &Path) -> String {
    path.strip_prefix(workspace()).unwrap_or(path).display().to_string()
}

fn assert_none(what: &str, findings: &[String]) {
    assert!(findings.is_empty(), "{what}:\n  {}", findings.join("\n  "));
}

#[test]
fn packages_depend_inwards_only() {
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED_EDGES.into_iter().collect();
    let mut findings = Vec::new();
    for package in packages() {
        let Some(edges) = allowed.get(package.name.as_str()) else {
            findings.push(format!("{} is not in the table of allowed edges", package.name));
            continue;
        };
        for table in ["dependencies", "build-dependencies", "dev-dependencies"] {
            for dependency in package.dependencies(table).into_iter().filter(|name| name.starts_with("cluster-")) {
                let own_test_doubles = table == "dev-dependencies" && dependency == package.name;
                if !edges.contains(&dependency) && !own_test_doubles {
                    findings.push(format!("{} must not depend on {dependency}", package.name));
                }
            }
        }
    }
    assert_none("arrows that point outwards", &findings);
}

#[test]
fn command_line_crates_stay_out_of_libraries() {
    let mut findings = Vec::new();
    for package in packages() {
        for (name, users) in ONLY_IN_BINARIES {
            if package.dependencies("dependencies").contains(&name) && !users.contains(&package.name.as_str()) {
                findings.push(format!("{} must not depend on {name}", package.name));
            }
        }
    }
    assert_none("crates for programs in libraries", &findings);
}

#[test]
fn every_package_inherits_the_lints_and_is_named_after_the_cluster() {
    let mut findings = Vec::new();
    for package in packages() {
        let inherits = package.manifest.get("lints").and_then(|lints| lints.get("workspace")?.as_bool());
        if inherits != Some(true) {
            findings.push(format!("{}: the lints of the workspace are not inherited", package.name));
        }
        if !package.name.starts_with("cluster-") {
            findings.push(format!("{}: packages are called cluster-…", shown(&package.folder)));
        }
    }
    assert_none("manifests out of order", &findings);
}

#[test]
fn every_version_stands_in_the_root_manifest() {
    let mut findings = Vec::new();
    for package in packages() {
        for table in ["dependencies", "build-dependencies", "dev-dependencies"] {
            let Some(entries) = package.manifest.get(table).and_then(toml::Value::as_table) else { continue };
            for (name, entry) in entries {
                let is_inherited = entry.get("workspace").and_then(toml::Value::as_bool) == Some(true);
                let is_itself = *name == package.name;
                if !is_inherited && !is_itself {
                    findings.push(format!("{}: {name} in {table}", package.name));
                }
            }
        }
    }
    assert_none("versions outside the root manifest", &findings);
}

#[test]
fn every_file_says_what_it_is_for() {
    let findings: Vec<String> = sources()
        .into_iter()
        .filter(|path| {
            let text = fs::read_to_string(path).unwrap();
            let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
            !first.starts_with("//! ") || first.trim_end() == "//! placeholder"
        })
        .map(|path| shown(&path))
        .collect();
    assert_none("files that do not begin with a //! header", &findings);
}

#[test]
fn no_file_is_longer_than_one_idea() {
    let findings: Vec<String> = sources()
        .into_iter()
        .filter_map(|path| {
            let lines = fs::read_to_string(&path).unwrap().lines().count();
            (lines > LONGEST_FILE).then(|| format!("{} has {lines} lines, more than {LONGEST_FILE}", shown(&path)))
        })
        .collect();
    assert_none("files that are several things", &findings);
}

#[test]
fn lints_are_expected_with_a_reason_and_never_allowed() {
    let bare = ["#[", "#!["].map(|open| format!("{open}allow("));
    let findings: Vec<String> = sources()
        .into_iter()
        .flat_map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let lines: Vec<usize> = text
                .lines()
                .enumerate()
                .filter(|(_, line)| bare.iter().any(|allow| line.trim_start().starts_with(allow.as_str())))
                .map(|(number, _)| number + 1)
                .collect();
            lines.into_iter().map(move |line| format!("{}:{line}", shown(&path)))
        })
        .collect();
    assert_none("use #[expect(…, reason = \"…\")]", &findings);
}

#[test]
fn every_kind_of_input_has_a_fuzzer_and_known_inputs() {
    let folder = workspace().join("tests/fuzz");
    let manifest: toml::Table = fs::read_to_string(folder.join("Cargo.toml")).unwrap().parse().unwrap();
    let fuzzers: BTreeSet<String> =
        manifest["bin"].as_array().unwrap().iter().map(|bin| bin["name"].as_str().unwrap().to_owned()).collect();
    let known: BTreeSet<String> = fs::read_dir(folder.join("corpus"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(fuzzers, known);
}

/// What no run of the simulator could repeat, and what to use instead.
const UNREPEATABLE: [(&str, &str); 2] =
    [("tokio::sync::watch", "crate::watch, which wakes in order"), ("rand::random", "a generator that is handed in")];

#[test]
fn nothing_in_core_is_left_to_chance() {
    let core = workspace().join("core/src");
    let mut findings = Vec::new();
    for path in sources().into_iter().filter(|path| path.starts_with(&core)) {
        let text = fs::read_to_string(&path).unwrap();
        let code: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        for (number, line) in code.iter().enumerate() {
            for (word, instead) in UNREPEATABLE.iter().filter(|(word, _)| line.contains(word)) {
                findings.push(format!("{}: {word}; use {instead}", shown(&path)));
            }
            let biased = code.get(number + 1).is_some_and(|next| next.trim() == "biased;");
            if line.contains("tokio::select! {") && !biased {
                findings.push(format!("{}: select! without biased;", shown(&path)));
            }
        }
    }
    assert_none("core draws chance by itself", &findings);
}
