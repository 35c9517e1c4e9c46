//! Checks what neither the compiler nor clippy sees. Invariant: what a newcomer opens explains itself, and
//! nothing of one developer's machine or of an unfinished thought is in the project.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Where a hand-written file is better parted; and where it must be.
const LONG: usize = 600;
const TOO_LONG: usize = 800;

/// Written apart, so that this file passes its own check.
const UNFINISHED: &[&str] =
    &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:"), concat!("dbg", "!(")];
const MACHINE_PATHS: &[&str] = &[concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/Use", "rs/")];
const SKIPPED_TEST: &str = concat!("#[", "ignore");

struct File {
    /// Relative to the root of the repository.
    path: String,
    text: String,
    executable: bool,
}

/// Prints files that grow too long; they are no error yet.
///
/// # Errors
/// Everything found, one `path:line: what` a line.
pub fn run(arguments: &[String]) -> Result<(), String> {
    if let Some(argument) = arguments.first() {
        return Err(format!("takes no argument, got `{argument}`"));
    }
    let root = Path::new(ROOT);
    let files = files(root)?;
    for file in files.iter().filter(|file| is_handwritten_code(&file.path)) {
        let lines = file.text.lines().count();
        if (LONG + 1..=TOO_LONG).contains(&lines) {
            println!("note: {} has {lines} lines; where it holds two subjects, part them", file.path);
        }
    }
    let problems: Vec<String> = files.iter().flat_map(|file| problems(root, file)).collect();
    if problems.is_empty() { Ok(()) } else { Err(format!("\n{}", problems.join("\n"))) }
}

/// Every text file that git knows or would add.
fn files(root: &Path) -> Result<Vec<File>, String> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .map_err(|error| format!("run git ls-files: {error}"))?;
    if !output.status.success() {
        return Err(format!("git ls-files: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let names = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut files: Vec<File> =
        names.split('\0').filter(|name| !name.is_empty()).filter_map(|name| read(root, name)).collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files.dedup_by(|a, b| a.path == b.path);
    Ok(files)
}

/// None for what was deleted but not yet committed, and for what is not text.
fn read(root: &Path, name: &str) -> Option<File> {
    let path = root.join(name);
    let text = fs::read_to_string(&path).ok()?;
    let executable = fs::metadata(&path).ok()?.permissions().mode() & 0o111 != 0;
    Some(File { path: name.to_owned(), text, executable })
}

fn problems(root: &Path, file: &File) -> Vec<String> {
    let mut found = Vec::new();
    if is_foreign(&file.path) {
        return found;
    }
    found.extend(whitespace(file));
    if is_generated(&file.path) {
        found.extend(generated_header(file));
    } else {
        found.extend(unfinished(file));
        found.extend(length(file));
        found.extend(module_opening(file));
    }
    found.extend(script_mode(file));
    found.extend(broken_links(root, file));
    found.extend(python_tests_without_assertion(file));
    found
}

/// Files whose text is not ours to shape.
fn is_foreign(path: &str) -> bool {
    path.ends_with(".lock")
        || path == "LICENSE"
        || path.ends_with(".tsv")
        || path.contains("/proptest-regressions/")
}

fn is_generated(path: &str) -> bool {
    path.starts_with("crates/shapes/") && path.ends_with(".rs") || path == "docs/coverage.md"
}

fn is_handwritten_code(path: &str) -> bool {
    let code =
        [".rs", ".py", ".sh", ".ts", ".tsx"].iter().any(|suffix| path.ends_with(suffix)) || path == "dev";
    code && !is_generated(path)
}

fn whitespace(file: &File) -> Vec<String> {
    let mut found = Vec::new();
    if !file.text.is_empty() && !file.text.ends_with('\n') {
        found.push(format!("{}: does not end with a newline", file.path));
    }
    for (number, line) in lines(&file.text) {
        if line.ends_with([' ', '\t', '\r']) {
            found.push(format!("{}:{number}: ends in white space", file.path));
        }
        if line.starts_with('\t') {
            found.push(format!("{}:{number}: is indented with a tab", file.path));
        }
    }
    found
}

fn unfinished(file: &File) -> Vec<String> {
    let mut found = Vec::new();
    for (number, line) in lines(&file.text) {
        for word in UNFINISHED.iter().filter(|word| line.contains(**word)) {
            found.push(format!("{}:{number}: `{word}`: finish it, or open an issue", file.path));
        }
        for path in MACHINE_PATHS.iter().filter(|path| line.contains(**path)) {
            found.push(format!("{}:{number}: `{path}`: a path of one machine", file.path));
        }
        if file.path.ends_with(".rs") && line.contains(SKIPPED_TEST) {
            found.push(format!("{}:{number}: a test that never runs proves nothing", file.path));
        }
    }
    found
}

fn length(file: &File) -> Option<String> {
    let lines = file.text.lines().count();
    (is_handwritten_code(&file.path) && lines > TOO_LONG)
        .then(|| format!("{}: {lines} lines; at most {TOO_LONG}: part it by subject", file.path))
}

fn module_opening(file: &File) -> Option<String> {
    // A file of unit tests belongs to the module beside it, which says what is kept.
    let source =
        file.path.starts_with("crates/") && file.path.ends_with(".rs") && !file.path.ends_with("/tests.rs");
    (source && !file.text.starts_with("//!"))
        .then(|| format!("{}:1: opens without `//!` and its invariant", file.path))
}

fn generated_header(file: &File) -> Option<String> {
    let opening: String = file.text.lines().take(5).collect::<Vec<_>>().join(" ").to_lowercase();
    (!opening.contains("generated"))
        .then(|| format!("{}:1: does not say that it is generated; run `cargo xtask codegen`", file.path))
}

fn script_mode(file: &File) -> Option<String> {
    let is_script = file.text.starts_with("#!") && !file.text.starts_with("#![");
    match (is_script, file.executable) {
        (true, false) => Some(format!("{}: starts with `#!` and is not executable", file.path)),
        (false, true) => Some(format!("{}: is executable and does not start with `#!`", file.path)),
        (true, true) | (false, false) => None,
    }
}

/// Links of a Markdown file to files of the repository; what has a scheme is not looked at.
fn broken_links(root: &Path, file: &File) -> Vec<String> {
    if !file.path.ends_with(".md") {
        return Vec::new();
    }
    let folder = Path::new(&file.path).parent().unwrap_or(Path::new(""));
    let mut found = Vec::new();
    for (number, line) in lines(&file.text) {
        for target in link_targets(line) {
            let path = target.split('#').next().unwrap_or_default();
            if path.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            if !normal(&folder.join(path)).is_some_and(|path| root.join(path).exists()) {
                found.push(format!("{}:{number}: links to `{target}`, which does not exist", file.path));
            }
        }
    }
    found
}

fn link_targets(line: &str) -> Vec<&str> {
    line.split("](").skip(1).filter_map(|rest| rest.split(')').next()).collect()
}

/// The path without `.` and `..`; None where it leaves the repository.
fn normal(path: &Path) -> Option<PathBuf> {
    let mut result = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                if !result.pop() {
                    return None;
                }
            }
            Component::Normal(name) => result.push(name),
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(result)
}

fn python_tests_without_assertion(file: &File) -> Vec<String> {
    if !file.path.ends_with(".py") {
        return Vec::new();
    }
    let asserts =
        |body: &str| ["assert", "raises(", "refused(", "check_"].iter().any(|word| body.contains(word));
    python_tests(&file.text)
        .into_iter()
        .filter(|(_, _, body)| !asserts(body))
        .map(|(number, name, _)| format!("{}:{number}: {name} asserts nothing", file.path))
        .collect()
}

/// Line, name and body of every test function.
fn python_tests(text: &str) -> Vec<(usize, &str, String)> {
    let mut tests: Vec<(usize, &str, String)> = Vec::new();
    let mut inside: Option<usize> = None;
    for (number, line) in lines(text) {
        let code = line.trim_start();
        let indent = line.len() - code.len();
        let starts = code.starts_with("def test_");
        if inside.is_some_and(|outer| starts || !code.is_empty() && !code.starts_with(')') && indent <= outer)
        {
            inside = None;
        }
        if starts {
            let name = code["def ".len()..].split('(').next().unwrap_or_default();
            tests.push((number, name, String::new()));
            inside = Some(indent);
        } else if inside.is_some()
            && let Some((_, _, body)) = tests.last_mut()
        {
            body.push_str(line);
            body.push('\n');
        }
    }
    tests
}

fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.split('\n').enumerate().map(|(index, line)| (index + 1, line))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, text: &str, expected: &[&str]) {
        let file = File { path: path.to_owned(), text: text.to_owned(), executable: false };
        assert_eq!(problems(Path::new(ROOT), &file), expected);
    }

    #[test]
    fn a_tidy_module_passes() {
        check("crates/model/src/x.rs", "//! Names things.\nfn a() {}\n", &[]);
    }

    #[test]
    fn a_module_opens_with_its_invariant() {
        check("crates/model/src/x/tests.rs", "fn a() {}\n", &[]);
        check(
            "crates/model/src/x.rs",
            "fn a() {}\n",
            &["crates/model/src/x.rs:1: opens without `//!` and its invariant"],
        );
    }

    #[test]
    fn unfinished_thoughts_are_found() {
        let text = format!("//! x\n// {} later\n{}]\n", UNFINISHED[0], SKIPPED_TEST);
        check(
            "crates/model/src/x.rs",
            &text,
            &[
                &format!("crates/model/src/x.rs:2: `{}`: finish it, or open an issue", UNFINISHED[0]),
                "crates/model/src/x.rs:3: a test that never runs proves nothing",
            ],
        );
    }

    #[test]
    fn paths_of_one_machine_are_found() {
        let text = format!("cd {}me\n", MACHINE_PATHS[1]);
        check(
            "docs/x.txt",
            &text,
            &[&format!("docs/x.txt:1: `{}`: a path of one machine", MACHINE_PATHS[1])],
        );
    }

    #[test]
    fn white_space_is_clean() {
        check(
            "a.toml",
            "a = 1 \n\tb = 2",
            &[
                "a.toml: does not end with a newline",
                "a.toml:1: ends in white space",
                "a.toml:2: is indented with a tab",
            ],
        );
    }

    #[test]
    fn a_file_has_an_end() {
        let text = format!("//! x\n{}", "\n".repeat(TOO_LONG));
        check(
            "crates/model/src/x.rs",
            &text,
            &["crates/model/src/x.rs: 801 lines; at most 800: part it by subject"],
        );
        check("crates/shapes/ecs/src/x.rs", &format!("// @generated\n{}", "\n".repeat(TOO_LONG)), &[]);
    }

    #[test]
    fn generated_files_say_so() {
        check(
            "crates/shapes/ecs/src/lib.rs",
            "pub struct A;\n",
            &["crates/shapes/ecs/src/lib.rs:1: does not say that it is generated; run `cargo xtask codegen`"],
        );
    }

    #[test]
    fn scripts_are_executable() {
        check("bin", "#!/bin/sh\n", &["bin: starts with `#!` and is not executable"]);
        check("crates/x/src/lib.rs", "//! x\n#![allow(unused)]\n", &[]);
    }

    #[test]
    fn links_lead_somewhere() {
        check(
            "docs/x.md",
            "[a](../Cargo.toml) [b](gone.md#part) [c](#here) [d](scheme://host)\n",
            &["docs/x.md:1: links to `gone.md#part`, which does not exist"],
        );
        check("x.md", "[a](../outside.md)\n", &["x.md:1: links to `../outside.md`, which does not exist"]);
    }

    #[test]
    fn python_tests_assert() {
        let text = "def test_a(x):\n    x.run()\n\n\ndef helper():\n    assert 1\n\n\ndef test_b(\n    x,\n):\n    assert x\n";
        check("conformance/test_x.py", text, &["conformance/test_x.py:1: test_a asserts nothing"]);
    }
}
