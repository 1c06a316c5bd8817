//! Checks the repository's rules. Each failure says how to repair it.

mod floors;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use floors::Crate;

/// The most lines of a source file; tables of tests may be longer.
const SOURCE_LINES_MAX: usize = 500;
/// The number of wire cases in the table of `tests/README.md`.
const WIRE_CASES: u32 = 198;

/// The crates in which each folder imports only from those before it, from the ground up.
const CRATES: &[Crate] = &[
    Crate {
        src: "filter/core/src/",
        rooms: &[
            "base",
            "host",
            "wire",
            "domain",
            "shared_data",
            "protocol",
            "fact",
            "pricing",
            "sink",
            "config",
            "admission",
            "guard",
            "session",
            "exchange",
            "event",
            "accountant",
            "meter",
        ],
    },
    Crate {
        src: "filter/proxy/src/",
        rooms: &["alloc", "crash", "raw", "host", "vm", "stream", "control", "root"],
    },
    Crate {
        src: "harness/collector/src/",
        rooms: &[
            "clock",
            "gzip",
            "hex",
            "http_client",
            "csv_file",
            "settings",
            "money",
            "sql",
            "query",
            "access",
            "event",
            "contracts",
            "ledger",
            "report",
            "invoice",
            "books",
            "export",
            "proof",
            "prices",
            "webhook",
            "handover",
            "recover",
            "access_log",
            "bill",
            "page",
            "routes",
            "server",
        ],
    },
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a parent").to_owned()
}

/// The files that git knows or would add, relative to the root, with the text of those that are
/// text.
fn files() -> Vec<(String, String)> {
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git lists the files");
    let names = String::from_utf8(listed.stdout).expect("file names in UTF-8");
    let read = |name: &str| Some((name.to_owned(), fs::read_to_string(root().join(name)).ok()?));
    let files: Vec<_> = names.lines().filter_map(read).collect::<Vec<_>>();
    assert!(files.len() > 50, "git listed {} files only", files.len());
    files
}

fn check(rule: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

#[test]
fn source_files_do_one_job() {
    let is_source = |name: &str| name.ends_with(".rs") && !name.contains("tests/");
    let broken = files()
        .into_iter()
        .map(|(name, text)| (text.lines().count(), name))
        .filter(|(lines, name)| is_source(name) && *lines > SOURCE_LINES_MAX)
        .map(|(lines, name)| format!("{name}: {lines} lines"))
        .collect::<Vec<_>>();
    check("a file of more than 500 lines holds two jobs: split it", &broken);
}

#[test]
fn imports_run_downward_and_in_no_circle() {
    let files = files();
    let broken: Vec<String> = CRATES.iter().flat_map(|each| each.broken_imports(&files)).collect();
    check("move what both need to the lower room, or change the order in tests/tidy", &broken);
}

#[test]
fn the_core_lists_its_rooms_in_their_order() {
    let files = files();
    let lib = files.iter().find(|(name, _)| name == "filter/core/src/lib.rs").expect("a lib.rs");
    let rooms = lib.1.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    assert_eq!(rooms.collect::<Vec<_>>(), CRATES[0].rooms, "lib.rs and this list are one");
}

#[test]
fn rust_files_say_what_they_are_for() {
    let broken = files()
        .into_iter()
        .filter(|(name, text)| name.ends_with(".rs") && !text.starts_with("//!"))
        .map(|(name, _)| name)
        .collect::<Vec<_>>();
    check("begin the file with `//!` and one sentence", &broken);
}

/// The core's tables run on wasm32 with a `test` of their own; one that forgets it runs natively alone.
#[test]
fn the_cores_tables_run_on_wasm32_too() {
    let natively = ["coverage.rs", "llm.rs", "support.rs"];
    let forgets = |(path, text): &(String, String)| {
        let name = path.strip_prefix("filter/core/tests/core/")?;
        let imports = text.split("use crate::support::").skip(1).any(|rest| {
            let names = rest.split(';').next().unwrap_or_default();
            names.split([',', '{', '}', ' ', '\n']).any(|name| name == "test")
        });
        (text.contains("#[test]") && !imports && !natively.contains(&name)).then(|| path.clone())
    };
    let broken: Vec<String> = files().iter().filter_map(forgets).collect();
    check("a table of the core imports `crate::support::test`", &broken);
}

#[test]
fn nothing_is_left_for_later() {
    // Joined here, so that this file does not contain the words.
    let words =
        [["TO", "DO"], ["FIX", "ME"], ["XX", "X"], ["dbg", "!("]].map(|parts| parts.concat());
    let broken = files()
        .into_iter()
        .filter(|(name, _)| name.ends_with(".rs") || name.ends_with("Makefile"))
        .flat_map(|(name, text)| {
            let words = words.clone();
            text.lines()
                .enumerate()
                .filter(|(_, line)| words.iter().any(|word| line.contains(word.as_str())))
                .map(|(at, _)| format!("{name}:{}", at + 1))
                .collect::<Vec<_>>()
        })
        .collect::<Vec<_>>();
    check("do it now, or write it down where it is decided", &broken);
}

#[test]
fn each_dependency_of_the_module_is_accounted_for() {
    let files = files();
    let text = |wanted: &str| {
        files
            .iter()
            .find(|(name, _)| name == wanted)
            .map(|(_, text)| text.as_str())
            .expect("a file")
    };
    let manifests = [text("filter/core/Cargo.toml"), text("filter/proxy/Cargo.toml")];
    let design = text("filter/DESIGN.md");
    let broken = manifests
        .iter()
        .flat_map(|manifest| manifest.split("\n[").filter(|part| part.starts_with("dependencies]")))
        .flat_map(|part| part.lines().skip(1))
        .filter(|line| line.contains('=') && !line.starts_with('#'))
        .filter_map(|line| line.split(['.', ' ', '=']).next())
        .filter(|name| *name != "agent-meter-core" && *name != "log")
        .filter(|name| !design.contains(&format!("`{name}`")))
        .map(str::to_owned)
        .collect::<Vec<_>>();
    check("add a row to the table of dependencies in filter/DESIGN.md", &broken);
}

#[test]
fn links_in_the_documents_lead_somewhere() {
    let mut broken = Vec::new();
    for (name, text) in files().iter().filter(|(name, _)| name.ends_with(".md")) {
        let folder = Path::new(name).parent().unwrap_or(Path::new(""));
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = link.split('#').next().unwrap_or_default();
            if !path.is_empty() && !path.contains("://") && !root().join(folder).join(path).exists()
            {
                broken.push(format!("{name}: {link}"));
            }
        }
    }
    check("the file is not there", &broken);
}

/// The numbers at the start of a test's strings and comments that a colon follows, as in `"45, 47:
/// replays"`.
fn wire_cases(text: &str) -> BTreeSet<u32> {
    let mut cases = BTreeSet::new();
    for (colon, _) in text.match_indices(':') {
        let head = text[..colon].trim_end_matches(|c: char| c.is_ascii_digit() || ", ".contains(c));
        if head.ends_with(['"', '/']) {
            let numbers = text[head.len()..colon].split(',').map(str::trim);
            cases.extend(numbers.filter_map(|number| number.parse::<u32>().ok()));
        }
    }
    cases
}

#[test]
fn the_table_of_wire_cases_is_complete() {
    let files = files();
    let cases_in: BTreeMap<&str, BTreeSet<u32>> = files
        .iter()
        .filter_map(|(name, text)| Some((short_name(name)?, wire_cases(text))))
        .collect();
    let table = files.iter().find(|(name, _)| name == "tests/README.md").map(|(_, text)| text);
    let mut broken = Vec::new();
    let mut listed = Vec::new();
    for line in table.expect("a table").lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, case, what, expected, places, _] = cells.as_slice() else { continue };
        let Ok(case) = case.parse::<u32>() else { continue };
        listed.push(case);
        let places: Vec<&str> = places.split('`').skip(1).step_by(2).collect();
        if what.is_empty() || expected.is_empty() || places.is_empty() {
            broken.push(format!("{case}: an empty cell"));
        }
        for place in places {
            if !cases_in.get(place).is_some_and(|cases| cases.contains(&case)) {
                broken.push(format!("{case}: no test in {place} begins with this number"));
            }
        }
    }
    if !listed.iter().copied().eq(1..=WIRE_CASES) {
        broken.push(format!("expected 1 to {WIRE_CASES} in order, found {listed:?}"));
    }
    check("make tests/README.md and the tests agree", &broken);
}

/// The name of a test file in the table of wire cases.
fn short_name(name: &str) -> Option<&str> {
    let is_test = name.ends_with(".rs");
    let short = name.strip_prefix("filter/core/tests/").or_else(|| name.strip_prefix("tests/"));
    short.filter(|_| is_test)
}
