//! The repository tests itself: its files are as long, as wide and as walled as they should be.

use std::fs;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
const COLUMNS_MAX: usize = 100;

/// Written by a tool, from a header.
const GENERATED: &str = "zmq-sys/src/ffi.rs";

/// All files below `folder` with one of `endings`, each with its path from the root and its text.
fn files(folder: &str, endings: &[&str]) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut folders = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in
            fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        {
            let path: PathBuf = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if !name.ends_with("__pycache__") && !name.contains("/target") {
                    folders.push(path);
                }
            } else if endings.iter().any(|ending| name.ends_with(ending)) && name != GENERATED {
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no files in {folder}");
    found
}

fn rust() -> Vec<(String, String)> {
    ["src", "tests", "benches", "fuzz", "zmq-sys"]
        .iter()
        .flat_map(|folder| files(folder, &[".rs"]))
        .collect()
}

fn sources() -> Vec<(String, String)> {
    let python = ["python", "tests", "benches", "examples"];
    let python = python.iter().flat_map(|folder| files(folder, &[".py"]));
    rust().into_iter().chain(python).collect()
}

#[test]
fn a_file_has_500_lines_at_most() {
    for (name, text) in sources() {
        let lines = text.lines().count();
        assert!(lines <= FILE_LINES_MAX, "{name} has {lines} lines");
    }
}

#[test]
fn a_line_has_100_columns_at_most() {
    let mut wide = Vec::new();
    for (name, text) in sources() {
        for (number, line) in text.lines().enumerate() {
            if line.chars().count() > COLUMNS_MAX {
                wide.push(format!("{name}:{}", number + 1));
            }
        }
    }
    assert!(wide.is_empty(), "too wide: {wide:?}");
}

#[test]
fn a_file_says_first_what_it_is_for() {
    for (name, text) in rust() {
        let first = text.lines().find(|line| !line.starts_with("#!"));
        assert!(first.is_some_and(|line| line.starts_with("//! ")), "{name} does not say");
    }
}

#[test]
fn a_function_has_70_lines_at_most() {
    for (name, text) in rust() {
        let mut open: Option<(usize, usize)> = None;
        for (number, line) in text.lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let starts = [
                "fn ",
                "pub fn ",
                "pub(super) fn ",
                "pub(crate) fn ",
                "const fn ",
                "pub const fn ",
            ];
            if open.is_none() && starts.iter().any(|start| line.trim_start().starts_with(start)) {
                open = Some((number, indent));
            }
            if let Some((start, depth)) = open
                && indent == depth
                && (line.trim() == "}" || line.ends_with('}') || line.ends_with(';'))
            {
                let lines = number - start + 1;
                assert!(lines <= FUNCTION_LINES_MAX, "{name}:{} has {lines} lines", start + 1);
                open = None;
            }
        }
    }
}

#[test]
fn each_library_stays_within_its_walls() {
    for (name, text) in files("src", &[".rs"]) {
        for (library, home) in [
            ("zmq::", "src/net/"),
            ("mio::", "src/net/"),
            ("rustix::process", "src/cli/"),
            ("rustix::system", "src/net/"),
            ("rustix::termios", "src/cli/"),
            ("rustix::time", "src/net/"),
            ("signal_hook::", "src/cli/"),
            ("socket2::", "src/net/"),
            ("redb::", "src/net/"),
            ("rustls::", "src/registry/"),
            ("serde_json::", "src/registry/etcd/"),
            ("tokio::", "src/registry/postgres.rs"),
            ("tokio_postgres", "src/registry/postgres.rs"),
            ("ureq::", "src/registry/etcd/"),
            ("pyo3", "src/python/"),
            ("clap::", "src/cli/"),
            ("crossterm::", "src/cli/top/screen.rs"),
            ("ratatui::", "src/cli/top/"),
            ("toml::", "src/config_file.rs"),
        ] {
            let named =
                text.lines().any(|line| line.contains(library) && !line.contains("mod python"));
            assert!(!named || name.starts_with(home), "{name} names {library}");
        }
    }
}

#[test]
fn nothing_is_left_undone() {
    let marks = ["TODO", "FIXME", "XXX", "todo!", "unimplemented!"];
    for (name, text) in sources() {
        let left = marks.iter().find(|mark| text.contains(**mark));
        assert!(left.is_none() || name == "tests/tidy.rs", "{name} has {left:?}");
    }
}

#[test]
fn the_changelog_starts_with_this_version() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let changelog = fs::read_to_string(root.join("CHANGELOG.md")).unwrap();
    let newest = changelog.lines().find_map(|line| line.strip_prefix("## ")).unwrap();
    assert_eq!(newest.split_whitespace().next(), Some(env!("CARGO_PKG_VERSION")));
}

#[test]
fn every_decision_is_numbered_in_turn() {
    for (place, (name, text)) in files("docs/decisions", &[".md"]).into_iter().enumerate() {
        let number = format!("docs/decisions/{:04}-", place + 1);
        assert!(name.starts_with(&number), "{name} is not number {}", place + 1);
        assert!(text.contains("## Rejected"), "{name} does not tell what was rejected");
    }
}
