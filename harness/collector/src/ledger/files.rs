//! The files of a ledger: only their owner may read them, as they tell who uses what and pays what.

use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Read and write, for the owner alone.
const MODE: u32 = 0o600;

/// The file with `suffix` behind its name: SQLite keeps two more beside the ledger.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Makes the file if there is none, and takes it, with the two beside it, from everybody but its
/// owner. SQLite gives files that it makes later the mode of the first.
///
/// Somebody else's files stay as they are: whoever owns them decides.
pub(super) fn keep_private(path: &Path) {
    // A failure is told by SQLite, which opens the file next.
    let _ = OpenOptions::new().write(true).create_new(true).mode(MODE).open(path);
    for file in [path.to_owned(), beside(path, "-wal"), beside(path, "-shm")] {
        let Ok(found) = fs::metadata(&file) else { continue };
        if !found.is_file() || found.permissions().mode() & 0o777 == MODE {
            continue;
        }
        if let Err(error) = fs::set_permissions(&file, Permissions::from_mode(MODE)) {
            tracing::warn!(file = %file.display(), "others may read the ledger: {error}");
        }
    }
}

/// Bytes of the ledger on disk.
pub(super) fn bytes(path: &Path) -> u64 {
    let files = [path.to_owned(), beside(path, "-wal")];
    files.iter().filter_map(|file| fs::metadata(file).ok()).map(|found| found.len()).sum()
}
