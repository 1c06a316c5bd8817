//! JSON lines: a file to which each event is appended as it came in, one line each.
//!
//! A batch is on the disk before the sink goes on. A crash between the two leaves lines that come
//! once more: `source` and `id` tell. Half a line, as a crash leaves it, is cut off at the start. A
//! file that has grown to `rotate_bytes` is renamed to `NAME.1`, that one to `NAME.2` and so on up to
//! `keep`; the oldest is removed, and the ledger still has its events.
//!
//! An event that takes the place of another is written as it is, with `supersedes`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::handover::sink::{Frame, Headers, Limits, Record, Sink};
use crate::handover::usage::Usage;

/// How many bytes are read at once, backwards, to find the end of the last whole line.
const LOOKED_AT_BYTES: u64 = 64 * 1024;

#[derive(Debug, Clone)]
pub(crate) struct JsonLines {
    pub(crate) file: PathBuf,
    pub(crate) rotate_bytes: u64,
    pub(crate) keep: u32,
}

impl Sink for JsonLines {
    fn limits(&self) -> Limits {
        let bytes = 8 * 1024 * 1024;
        Limits { records: 1000, records_max: 1000, bytes, dedup: None, oldest: None }
    }

    fn takes_all(&self) -> bool {
        true
    }

    fn records(&self, usage: &Usage<'_>) -> Result<Vec<Record>, String> {
        // As it came, but for line breaks between members.
        let body = match usage.event.raw.contains(['\n', '\r']) {
            false => usage.event.raw.to_owned(),
            true => {
                let value: serde_json::Value =
                    serde_json::from_str(usage.event.raw).map_err(|error| error.to_string())?;
                value.to_string()
            }
        };
        Ok(vec![Record { position: usage.position, id: usage.id.clone(), body }])
    }

    fn frame(&self) -> Frame {
        Frame::LINES
    }

    fn path(&self) -> String {
        String::new()
    }

    fn headers(&self, _: Option<&str>) -> Headers {
        Vec::new()
    }
}

impl JsonLines {
    /// Appends lines, and waits until they are on the disk.
    pub(crate) fn append(&self, lines: &str) -> io::Result<()> {
        let mut file = self.open()?;
        let length = cut_half_a_line(&mut file)?;
        if length > 0 && length.saturating_add(lines.len() as u64) > self.rotate_bytes {
            drop(file);
            self.rotate()?;
            file = self.open()?;
        }
        file.seek(SeekFrom::End(0))?;
        file.write_all(lines.as_bytes())?;
        file.sync_all()
    }

    fn open(&self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        options.open(&self.file)
    }

    fn rotate(&self) -> io::Result<()> {
        let name = |number: u32| {
            let mut name = self.file.clone().into_os_string();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        for number in (1..self.keep).rev() {
            rename(&name(number), &name(number + 1))?;
        }
        if self.keep == 0 {
            return fs::remove_file(&self.file);
        }
        rename(&self.file, &name(1))?;
        let folder = self.file.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Cuts off what stands behind the last line break, and returns the length that is left.
fn cut_half_a_line(file: &mut File) -> io::Result<u64> {
    let length = file.metadata()?.len();
    let mut end = length;
    while end > 0 {
        let begin = end.saturating_sub(LOOKED_AT_BYTES);
        file.seek(SeekFrom::Start(begin))?;
        let mut bytes = Vec::new();
        Read::by_ref(file).take(end - begin).read_to_end(&mut bytes)?;
        if let Some(at) = bytes.iter().rposition(|byte| *byte == b'\n') {
            end = begin + at as u64 + 1;
            break;
        }
        end = begin;
    }
    if end < length {
        file.set_len(end)?;
    }
    Ok(end)
}
