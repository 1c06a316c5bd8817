//! The directory of a stack's working files.

use std::path::Path;

use anyhow::Context;
use tempfile::TempDir;

use crate::envoy::Failure;

/// A temporary directory, which stays if the work in it failed.
#[derive(Debug)]
pub(crate) struct WorkDir {
    dir: Option<TempDir>,
    pub(crate) keep: bool,
    pub(crate) done: bool,
    /// True if somebody else tells where it is.
    pub(super) is_named: bool,
}

impl WorkDir {
    pub(crate) fn create() -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("agent-meter-").tempdir();
        let dir = dir.context("cannot create a temporary directory")?;
        Ok(Self { dir: Some(dir), keep: false, done: false, is_named: false })
    }

    /// Names the directory no more, as the error of Envoy does, or says all that is to say.
    pub(crate) fn named_in(&mut self, error: anyhow::Error) -> anyhow::Error {
        if let Some(failure) = error.downcast_ref::<Failure>() {
            self.done = failure.is_plain();
            self.is_named = true;
        }
        error
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.as_ref().map_or(Path::new(""), TempDir::path)
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        let Some(dir) = self.dir.take() else { return };
        if self.keep || !self.done {
            let dir = dir.keep();
            if !self.is_named {
                eprintln!("working files kept in {}", dir.display());
            }
        }
    }
}
