//! Checks which crate may use which. Invariant: every dependency goes to a lower floor that the table below
//! names, and `engine` has nothing through which it could do I/O, read a clock, draw chance or wait.
//!
//! The table is the one of `docs/architecture.md`; change both together, with an ADR.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// What a crate of the workspace stands for, and what it may use of the others.
struct Rule {
    crate_name: &'static str,
    may_use: &'static [&'static str],
}

/// The crates under `crates/shapes`, one per AWS service, stand in the table as this one name.
const SHAPES: &str = "shapes/*";

const TABLE: &[Rule] = &[
    Rule { crate_name: "longshore-model", may_use: &[] },
    Rule { crate_name: "longshore-wire", may_use: &[] },
    Rule { crate_name: SHAPES, may_use: &["longshore-wire"] },
    Rule { crate_name: "longshore-store", may_use: &["longshore-model"] },
    Rule { crate_name: "longshore-engine", may_use: &["longshore-model"] },
    Rule {
        crate_name: "longshore-control",
        may_use: &["longshore-model", "longshore-wire", SHAPES, "longshore-store", "longshore-engine"],
    },
    Rule { crate_name: "longshore-agent", may_use: &["longshore-model", "longshore-engine"] },
    Rule { crate_name: "longshore-edge", may_use: &["longshore-model", "longshore-engine"] },
    Rule {
        crate_name: "longshore",
        may_use: &[
            "longshore-model",
            "longshore-wire",
            "longshore-store",
            "longshore-engine",
            "longshore-control",
            "longshore-agent",
            "longshore-edge",
        ],
    },
    Rule {
        crate_name: "longshore-sim",
        may_use: &["longshore-model", "longshore-store", "longshore-engine"],
    },
    Rule { crate_name: "xtask", may_use: &[] },
];

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

const PURE: &str = "longshore-engine";

/// Packages that bring I/O, a clock, chance or waiting into a crate; a name ending in `*` is a prefix.
const IMPURE_PACKAGES: &[&str] = &[
    "tokio*",
    "async-*",
    "futures*",
    "smol",
    "mio",
    "hyper*",
    "reqwest",
    "tonic",
    "getrandom",
    "rand*",
    "fastrand",
    "uuid",
    "chrono",
    "jiff",
    "time",
    "rustix",
    "nix",
    "libc",
    "tempfile",
    "tracing*",
    "log",
];

/// What the standard library offers to the same effect, and what would make an answer depend on chance.
const IMPURE_CODE: &[(&str, &str)] = &[
    ("async fn", "decide in a plain function"),
    (".await", "decide in a plain function"),
    ("std::fs", "take the value as an argument"),
    ("std::net::Tcp", "return an action and let a shell do it"),
    ("std::net::Udp", "return an action and let a shell do it"),
    ("std::process", "return an action and let a shell do it"),
    ("std::env", "take the value as an argument"),
    ("std::thread", "decide in a plain function"),
    ("std::time::", "take now: Timestamp"),
    ("HashMap", "use BTreeMap or imbl::OrdMap: the same input must give the same output"),
    ("HashSet", "use BTreeSet or imbl::OrdSet: the same input must give the same output"),
];

/// A crate of the workspace and the names of all the packages that it depends on, for tests and builds too.
struct Package {
    name: String,
    is_shape: bool,
    dependencies: Vec<String>,
}

/// Prints nothing when all is well.
///
/// # Errors
/// Every wrong edge with what to do about it, one a line.
pub fn run(arguments: &[String]) -> Result<(), String> {
    if let Some(argument) = arguments.first() {
        return Err(format!("takes no argument, got `{argument}`"));
    }
    let root = Path::new(ROOT);
    let packages = packages(&metadata(root)?)?;
    let mut problems = wrong_edges(&packages);
    problems.extend(impure_packages(&packages));
    problems.extend(impure_sources(root)?);
    if problems.is_empty() { Ok(()) } else { Err(format!("\n{}", problems.join("\n"))) }
}

fn metadata(root: &Path) -> Result<Value, String> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root)
        .output()
        .map_err(|error| format!("run cargo metadata: {error}"))?;
    if !output.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr)));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| format!("read cargo metadata: {error}"))
}

fn packages(metadata: &Value) -> Result<Vec<Package>, String> {
    let list = metadata["packages"].as_array().ok_or("cargo metadata names no packages")?;
    list.iter()
        .map(|package| {
            let name = package["name"].as_str().ok_or("a package without a name")?.to_owned();
            let manifest = package["manifest_path"].as_str().unwrap_or_default();
            let dependencies = package["dependencies"].as_array().map(Vec::as_slice).unwrap_or_default();
            Ok(Package {
                name,
                is_shape: manifest.contains("crates/shapes/"),
                dependencies: dependencies
                    .iter()
                    .filter_map(|dependency| dependency["name"].as_str().map(str::to_owned))
                    .collect(),
            })
        })
        .collect()
}

fn wrong_edges(packages: &[Package]) -> Vec<String> {
    let rows: BTreeMap<&str, &str> =
        packages.iter().map(|package| (package.name.as_str(), row(package))).collect();
    let mut problems = Vec::new();
    for package in packages {
        let Some(rule) = TABLE.iter().find(|rule| rule.crate_name == row(package)) else {
            problems.push(format!(
                "{} stands on no floor: add it to the tables in docs/architecture.md and xtask's layers.rs",
                package.name
            ));
            continue;
        };
        for dependency in &package.dependencies {
            let Some(used) = rows.get(dependency.as_str()) else { continue };
            if !rule.may_use.contains(used) {
                problems.push(format!("{} may not use {dependency}: {}", package.name, advice(rule)));
            }
        }
    }
    problems
}

fn row(package: &Package) -> &str {
    if package.is_shape { SHAPES } else { &package.name }
}

fn advice(rule: &Rule) -> String {
    if rule.may_use.is_empty() {
        return "it stands on the ground; what both need belongs into the lower of the two".to_owned();
    }
    format!("it may use {}; pass values through those, or move what is shared down", rule.may_use.join(", "))
}

fn impure_packages(packages: &[Package]) -> Vec<String> {
    let pure = packages.iter().filter(|package| package.name == PURE);
    pure.flat_map(|package| &package.dependencies)
        .filter(|dependency| is_impure(dependency))
        .map(|dependency| {
            format!("{PURE} may not use {dependency}: decisions take time, ids and chance as arguments")
        })
        .collect()
}

fn is_impure(package: &str) -> bool {
    IMPURE_PACKAGES.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(prefix) => package.starts_with(prefix),
        None => package == *pattern,
    })
}

fn impure_sources(root: &Path) -> Result<Vec<String>, String> {
    let folder = root.join("crates/engine/src");
    let mut problems = Vec::new();
    for file in rust_files(&folder)? {
        let text = fs::read_to_string(&file).map_err(|error| format!("read {}: {error}", file.display()))?;
        let shown = file.strip_prefix(root).unwrap_or(&file).display().to_string();
        problems.extend(impure_lines(&text).map(|(line, what)| format!("{shown}:{line}: {what}")));
    }
    Ok(problems)
}

fn rust_files(folder: &Path) -> Result<Vec<std::path::PathBuf>, String> {
    let mut files = Vec::new();
    let entries = fs::read_dir(folder).map_err(|error| format!("list {}: {error}", folder.display()))?;
    for entry in entries {
        let path = entry.map_err(|error| format!("list {}: {error}", folder.display()))?.path();
        if path.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Lines of a module of `engine`, up to its tests, that reach for the world outside.
fn impure_lines(text: &str) -> impl Iterator<Item = (usize, String)> {
    text.lines()
        .take_while(|line| line.trim() != "#[cfg(test)]")
        .enumerate()
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .filter_map(|(index, line)| {
            let (found, advice) = IMPURE_CODE.iter().find(|(pattern, _)| line.contains(pattern))?;
            Some((index + 1, format!("`{found}` in {PURE}: {advice}")))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, dependencies: &[&str]) -> Package {
        Package {
            name: name.to_owned(),
            is_shape: name == "longshore-ecs",
            dependencies: dependencies.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    fn check(packages: &[Package], expected: &[&str]) {
        let mut found = wrong_edges(packages);
        found.extend(impure_packages(packages));
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found} does not start with {expected}");
        }
    }

    #[test]
    fn the_design_itself_passes() {
        check(
            &[
                package("longshore-model", &["serde"]),
                package("longshore-wire", &["regex"]),
                package("longshore-ecs", &["longshore-wire"]),
                package("longshore-engine", &["longshore-model", "imbl"]),
                package("longshore-control", &["longshore-engine", "longshore-ecs", "tokio"]),
            ],
            &[],
        );
    }

    #[test]
    fn the_shells_never_import_each_other() {
        check(
            &[
                package("longshore-agent", &["longshore-control"]),
                package("longshore-control", &["longshore-edge"]),
                package("longshore-edge", &["longshore-agent"]),
            ],
            &[
                "longshore-agent may not use longshore-control",
                "longshore-control may not use longshore-edge",
                "longshore-edge may not use longshore-agent",
            ],
        );
    }

    #[test]
    fn shapes_use_only_the_wire() {
        check(
            &[package("longshore-model", &[]), package("longshore-ecs", &["longshore-model"])],
            &["longshore-ecs may not use longshore-model: it may use longshore-wire"],
        );
    }

    #[test]
    fn a_crate_without_a_floor_is_named() {
        check(&[package("longshore-misc", &[])], &["longshore-misc stands on no floor"]);
    }

    #[test]
    fn the_engine_stays_pure() {
        check(
            &[package("longshore-engine", &["tokio", "tokio-stream", "rand_core", "timeline"])],
            &[
                "longshore-engine may not use tokio:",
                "longshore-engine may not use tokio-stream:",
                "longshore-engine may not use rand_core:",
            ],
        );
        let text = "// HashMap in a comment\nuse std::fs;\n#[cfg(test)]\nuse std::env;\n";
        let found: Vec<_> = impure_lines(text).collect();
        assert_eq!(found, [(2, "`std::fs` in longshore-engine: take the value as an argument".to_owned())]);
    }

    #[test]
    fn this_workspace_is_readable() {
        let packages = packages(&metadata(Path::new(ROOT)).expect("cargo metadata")).expect("packages");
        assert!(packages.iter().any(|package| package.name == PURE));
        assert!(packages.iter().any(|package| package.is_shape));
    }
}
