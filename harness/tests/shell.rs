//! Tests what `agent-meter` tells shells and `man`, as they read it.

use std::process::{Command, Output};

fn run(program: &str, args: &[&str]) -> Output {
    Command::new(program).args(args).output().expect("the program starts")
}

fn agent_meter(args: &[&str]) -> Output {
    run(env!("CARGO_BIN_EXE_agent-meter"), args)
}

fn text(output: &Output) -> &str {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::str::from_utf8(&output.stdout).expect("text")
}

#[test]
fn bash_completes_commands_and_options() {
    let dir = tempfile::tempdir().expect("a directory");
    let script = dir.path().join("agent-meter.bash");
    let completions = agent_meter(&["completions", "bash"]);
    std::fs::write(&script, text(&completions)).expect("a file");
    for (line, expected) in [
        ("agent-meter inv", "invoice invoices"),
        ("agent-meter check ", "config module"),
        ("agent-meter run --conf", "--config"),
        ("agent-meter completions z", "zsh"),
    ] {
        // What bash does when someone presses the tabulator.
        let asked = format!(
            "source {}; COMP_LINE='{line}'; COMP_WORDS=({line}); \
             [[ $COMP_LINE == *' ' ]] && COMP_WORDS+=(''); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             complete=$(complete -p agent-meter); complete=${{complete#*-F }}; \
             ${{complete%% *}} agent-meter \"${{COMP_WORDS[-1]}}\" \"${{COMP_WORDS[-2]}}\"; \
             echo \"${{COMPREPLY[@]}}\"",
            script.display()
        );
        let completed = run("bash", &["-c", &asked]);
        let words: Vec<&str> = text(&completed).split_whitespace().collect();
        for word in expected.split(' ') {
            assert!(words.contains(&word), "{line:?}: {words:?}");
        }
    }
}

#[test]
fn there_is_a_page_of_the_manual_for_each_command() {
    let dir = tempfile::tempdir().expect("a directory");
    let place = dir.path().join("man1");
    text(&agent_meter(&["man", place.to_str().expect("text")]));
    for (page, says) in [
        ("agent-meter.1", "agent\\-meter\\-invoice"),
        ("agent-meter-run.1", "\\-\\-upstream"),
        ("agent-meter-check-config.1", "plugin configuration"),
    ] {
        let page = std::fs::read_to_string(place.join(page)).expect(page);
        assert!(page.contains(says), "{says} in {page}");
    }
}

#[test]
fn a_manual_that_cannot_be_written_is_one_line() {
    let refused = agent_meter(&["man", "/dev/null/man1"]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success());
    assert!(told.contains("cannot write the manual to /dev/null/man1"), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
}
