//! The filter's module: finds its file, and reads what a binary imports and exports (WebAssembly
//! core 2.0, binary format).
//!
//! It reads only the import and export sections; Envoy checks whether the code is valid.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};

const MODULE: &str = "wasm32-unknown-unknown/release/agent_meter_filter.wasm";

/// What Envoy calls in a module of the proxy-wasm ABI 0.2.1 that meters HTTP and sends callouts.
const EXPORTS: [&str; 12] = [
    "malloc",
    "memory",
    "proxy_abi_version_0_2_1",
    "proxy_on_configure",
    "proxy_on_context_create",
    "proxy_on_done",
    "proxy_on_http_call_response",
    "proxy_on_request_body",
    "proxy_on_request_headers",
    "proxy_on_response_body",
    "proxy_on_response_headers",
    "proxy_on_tick",
];

/// Finds the module: at the given path, in `$AGENT_METER_WASM`, beside this executable's profile,
/// or below `target`.
pub fn find(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    let named = given.map(|path| ("--wasm", path.to_owned())).or_else(|| {
        let path = env::var_os("AGENT_METER_WASM").filter(|path| !path.is_empty())?;
        Some(("AGENT_METER_WASM", path.into()))
    });
    if let Some((origin, path)) = named {
        ensure!(path.is_file(), "{origin}: no file {}", path.display());
        return Ok(path);
    }
    let executable = env::current_exe().unwrap_or_default();
    // Binaries are in target/PROFILE, tests in target/PROFILE/deps.
    let beside = executable.ancestors().skip(2).take(2).map(|target| target.join(MODULE));
    beside
        .chain([Path::new("target").join(MODULE)])
        .find(|path| path.is_file())
        .with_context(|| format!("no module target/{MODULE}; run make build"))
}

/// What a module imports and exports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// Size of the binary in bytes.
    pub size_bytes: u64,
    /// Imported names as (module, name), in the order of the binary.
    pub imports: Vec<(String, String)>,
    /// Exported names, in the order of the binary.
    pub exports: Vec<String>,
}

impl Module {
    /// Reads a binary.
    pub fn parse(binary: &[u8]) -> anyhow::Result<Self> {
        let mut reader = Reader(binary);
        ensure!(reader.bytes(4).ok() == Some(b"\0asm"), "not a WebAssembly binary");
        ensure!(reader.bytes(4)? == [1, 0, 0, 0], "not a core module of version 1");
        let size_bytes = u64::try_from(binary.len())?;
        let mut module = Self { size_bytes, imports: Vec::new(), exports: Vec::new() };
        while !reader.0.is_empty() {
            let id = reader.byte()?;
            let length = reader.length()?;
            let mut section = Reader(reader.bytes(length)?);
            match id {
                2 => module.imports = section.list(Reader::import).context("import section")?,
                7 => module.exports = section.list(Reader::export).context("export section")?,
                _ => {}
            }
        }
        Ok(module)
    }

    /// What keeps the module from being this filter, one line each; empty if nothing does.
    pub fn problems(&self) -> Vec<String> {
        let foreign = self
            .imports
            .iter()
            .filter(|(module, name)| module != "env" || !name.starts_with("proxy_"));
        let missing = EXPORTS.iter().filter(|name| !self.exports.iter().any(|has| has == *name));
        let foreign = foreign.map(|(module, name)| {
            format!("imports {module}.{name}: expected only env.proxy_*, which every host has")
        });
        foreign.chain(missing.map(|name| format!("does not export {name}"))).collect()
    }
}

impl fmt::Display for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (imports, exports) = (self.imports.len(), self.exports.len());
        write!(f, "{} bytes, {imports} imports, {exports} exports", self.size_bytes)
    }
}

/// The rest of a binary.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> anyhow::Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).context("the binary is cut short")?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> anyhow::Result<u8> {
        Ok(self.bytes(1)?[0])
    }

    /// Reads an unsigned LEB128 number.
    fn number(&mut self) -> anyhow::Result<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        bail!("a number is longer than 64 bits")
    }

    fn length(&mut self) -> anyhow::Result<usize> {
        Ok(usize::try_from(self.number()?)?)
    }

    fn name(&mut self) -> anyhow::Result<String> {
        let length = self.length()?;
        Ok(String::from_utf8(self.bytes(length)?.to_vec())?)
    }

    fn list<T>(&mut self, item: fn(&mut Self) -> anyhow::Result<T>) -> anyhow::Result<Vec<T>> {
        (0..self.number()?).map(|_| item(self)).collect()
    }

    fn import(&mut self) -> anyhow::Result<(String, String)> {
        let names = (self.name()?, self.name()?);
        match self.byte()? {
            0x00 => drop(self.number()?),
            0x01 => {
                self.byte()?;
                self.limits()?;
            }
            0x02 => self.limits()?,
            0x03 => drop(self.bytes(2)?),
            0x04 => {
                self.byte()?;
                self.number()?;
            }
            kind => bail!("{}.{} is of unknown kind {kind}", names.0, names.1),
        }
        Ok(names)
    }

    fn limits(&mut self) -> anyhow::Result<()> {
        let has_maximum = self.byte()? & 1 == 1;
        self.number()?;
        if has_maximum {
            self.number()?;
        }
        Ok(())
    }

    fn export(&mut self) -> anyhow::Result<String> {
        let name = self.name()?;
        self.byte()?;
        self.number()?;
        Ok(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `(module (import "env" "proxy_log" (func (type 0))) (import "js" "now" (memory 1 2)) (export
    /// "memory" ..))`
    const BINARY: &[u8] = b"\0asm\x01\0\0\0\
        \x01\x04\x01\x60\0\0\
        \x02\x1c\x02\x03env\x09proxy_log\0\0\x02js\x03now\x02\x01\x01\x02\
        \x07\x0a\x01\x06memory\x02\0";

    #[test]
    fn imports_and_exports_are_read() {
        let module = Module::parse(BINARY).expect("a module");
        let imports: Vec<String> =
            module.imports.iter().map(|(module, name)| format!("{module}.{name}")).collect();
        assert_eq!(imports, ["env.proxy_log", "js.now"]);
        assert_eq!(module.exports, ["memory"]);
        let problems = module.problems();
        assert_eq!(problems[0], "imports js.now: expected only env.proxy_*, which every host has");
        assert_eq!(problems[1], "does not export malloc");
        assert_eq!(problems.len(), EXPORTS.len(), "{problems:?}");
    }

    #[test]
    fn every_cut_is_an_error_or_a_shorter_module_and_never_a_panic() {
        for end in 0..BINARY.len() {
            let _ = Module::parse(&BINARY[..end]);
        }
        assert!(Module::parse(b"<html>").is_err());
    }
}
