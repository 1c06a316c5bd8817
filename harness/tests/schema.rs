//! Tests `agent-meter schema` as it is run.

use std::path::Path;
use std::process::Command;

#[test]
fn it_prints_the_schema_that_editors_read() {
    let printed = Command::new(env!("CARGO_BIN_EXE_agent-meter")).arg("schema").output();
    let printed = printed.expect("the command starts");
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../envoy/filter.schema.json");
    let file = std::fs::read_to_string(file).expect("the schema's file");
    assert_eq!(String::from_utf8(printed.stdout).expect("text"), file);
}
