//! `agent-meter run`, `demo` and `check config`, as whoever types them sees them: one line for a
//! mistake.

mod support;

use std::net::TcpListener;

use support::{Ended, Files, path, run};

/// The options that let a run need nothing of the machine.
const ANY: [&str; 8] = [
    "--listen",
    "127.0.0.1:0",
    "--admin",
    "127.0.0.1:0",
    "--collector",
    "127.0.0.1:0",
    "--ledger",
    "sqlite::memory:",
];

/// A run to an upstream that does not exist, with one option changed or added.
fn run_with(option: &str, value: &str) -> Ended {
    let mut words = vec!["run", "--upstream", "http://127.0.0.1:9"];
    words.extend(ANY.chunks(2).filter(|pair| pair[0] != option).flatten());
    run(&[&words[..], &[option, value]].concat())
}

/// The only line on stderr.
fn only_line(ended: &Ended) -> &str {
    assert_eq!((ended.status, &ended.out[..]), (1, ""), "{ended:?}");
    let lines: Vec<&str> = ended.err.lines().collect();
    let [line] = lines[..] else { panic!("expected one line, found {lines:#?}") };
    line
}

#[test]
fn a_wrong_configuration_is_one_line_that_names_the_file_and_the_place() {
    let files = Files::new();
    let product = "products: [{ id: a, type: MCP_SERVER, match: { path_prfix: / } }]";
    let file = files.with("typo.yaml", product);
    let expected = format!(
        "error: {file}: agent-meter configuration refused: products[0].match.path_prfix: unknown field `path_prfix`, expected one of `host`, `path`, `path_prefix`, `path_template`, `case`, `headers`; did you mean `path_prefix`?"
    );
    for ended in [
        run_with("--config", &file),
        run(&["demo", "--config", &file]),
        run(&["check", "config", &file]),
    ] {
        assert_eq!(only_line(&ended), expected);
    }
    // It starts no Envoy.
    let expected = expected.replace("agent-meter configuration refused: ", "");
    let ended = run(&["bootstrap", "--upstream", "http://127.0.0.1:9", "--config", &file]);
    assert_eq!(only_line(&ended), expected);
}

#[test]
fn a_port_in_use_is_one_line_that_names_the_option_and_the_address() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = taken.local_addr().expect("an address").to_string();
    let in_use = "Address already in use (os error 98)";
    for (option, expected) in [
        ("--listen", format!("error: --listen: cannot listen on {addr}: {in_use}")),
        ("--admin", format!("error: --admin: cannot listen on {addr}: {in_use}")),
        ("--collector", format!("error: cannot start the collector: listen on {addr}: {in_use}")),
    ] {
        assert_eq!(only_line(&run_with(option, &addr)), expected);
    }
    let collect = run(&["collect", "--listen", &addr, "--ledger", "sqlite::memory:"]);
    assert_eq!(only_line(&collect), format!("error: listen on {addr}: {in_use}"));
}

#[test]
fn a_mistake_leaves_no_files_behind() {
    let files = Files::new();
    let file = files.with("typo.yaml", "products: []");
    let work = files.at("tmp");
    std::fs::create_dir(&work).expect("a directory");
    let mut command = support::command(&["demo", "--config", &file]);
    let ended = command.env("TMPDIR", &work).output().expect("a command");
    assert!(!ended.status.success());
    let left: Vec<String> = std::fs::read_dir(&work)
        .expect("a directory")
        .map(|entry| path(&entry.expect("an entry").path()))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
