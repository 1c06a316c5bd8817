//! The agent-meter command.
fn main() {}
