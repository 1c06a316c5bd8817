//! The test runner of wasm-bindgen as a member of this workspace, so that the lock file pins its
//! version and nobody has to install it by hand.

fn main() -> anyhow::Result<()> {
    wasm_bindgen_cli::wasm_bindgen_test_runner::run_cli_with_args(std::env::args_os())
}
