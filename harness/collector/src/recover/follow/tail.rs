//! Reads one log as it grows, and finds what became of it: renamed, copied, compressed, truncated.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use flate2::read::MultiGzDecoder;

use super::super::input::{RawLine, read_line};
use super::super::scan::Scan;
use super::super::summary::Recovered;
use super::state::{Head, Position, State};

/// The most logs under one path that wait to be read: while the target is down, rotation goes on.
/// Those beyond are lost.
const WAITING_MAX: usize = 64;

/// A log.
#[derive(Debug)]
pub(super) struct Tail {
    /// Stands for it in messages and in the scan; another for each file.
    pub(super) name: Arc<str>,
    reader: Reader,
    inode: (u64, u64),
    head: Head,
    /// The first byte that was not read.
    pub(super) offset: u64,
}

#[derive(Debug)]
enum Reader {
    Plain(BufReader<File>),
    Gzip(Box<BufReader<MultiGzDecoder<File>>>),
}

impl Tail {
    /// Opens a file where the state says that it was left.
    fn open(path: &Path, file: &Path, state: &State) -> io::Result<Self> {
        let mut opened = File::open(file)?;
        let metadata = opened.metadata()?;
        let is_gzip = file.extension().is_some_and(|extension| extension == "gz");
        let start = || -> io::Result<Box<dyn Read>> {
            let opened = File::open(file)?;
            Ok(if is_gzip { Box::new(MultiGzDecoder::new(opened)) } else { Box::new(opened) })
        };
        let head = Head::read(start()?)?;
        let mut offset = 0;
        for known in state.under(path) {
            if known.head.is_of(start()?)? {
                offset = known.offset;
                break;
            }
        }
        let reader = if is_gzip {
            let mut reader = BufReader::new(MultiGzDecoder::new(opened));
            io::copy(&mut reader.by_ref().take(offset), &mut io::sink())?;
            Reader::Gzip(Box::new(reader))
        } else {
            // What is shorter than it was is not the same any more.
            if offset > metadata.len() {
                offset = 0;
            }
            opened.seek(SeekFrom::Start(offset))?;
            Reader::Plain(BufReader::new(opened))
        };
        let inode = (metadata.dev(), metadata.ino());
        let name = format!("{} (inode {})", file.display(), metadata.ino()).into();
        Ok(Self { name, reader, inode, head, offset })
    }

    /// The next line; of a log that still grows, only one that is ended.
    pub(super) fn next_line(&mut self, may_grow: bool) -> io::Result<Option<RawLine>> {
        let line = match &mut self.reader {
            Reader::Plain(reader) => read_line(reader)?,
            Reader::Gzip(reader) => read_line(reader)?,
        };
        let Some(line) = line else { return Ok(None) };
        if !line.is_ended
            && may_grow
            && let Reader::Plain(reader) = &mut self.reader
        {
            reader.seek(SeekFrom::Start(self.offset))?;
            return Ok(None);
        }
        self.offset += line.length;
        Ok(Some(line))
    }

    /// Learns more of its beginning, as long as that is short.
    fn learn(&mut self) -> io::Result<()> {
        let Reader::Plain(reader) = &mut self.reader else { return Ok(()) };
        if self.head.is_short() {
            reader.seek(SeekFrom::Start(0))?;
            let is_same = self.offset == 0 || self.head.is_of(&mut *reader)?;
            reader.seek(SeekFrom::Start(0))?;
            if is_same {
                self.head = Head::read(&mut *reader)?;
            }
            reader.seek(SeekFrom::Start(self.offset))?;
        }
        Ok(())
    }

    /// Whether nobody has written to it for this long.
    pub(super) fn is_quiet(&self, since: Duration) -> bool {
        let Reader::Plain(reader) = &self.reader else { return true };
        let modified = reader.get_ref().metadata().and_then(|metadata| metadata.modified());
        // A clock that was set back says nothing.
        modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age >= since))
    }

    /// Whether the file at the path is still this one, with what was read of it.
    fn is_same(&self, file: &Path) -> io::Result<bool> {
        let metadata = fs::metadata(file)?;
        let is_here = (metadata.dev(), metadata.ino()) == self.inode;
        Ok(is_here
            && metadata.len() >= self.offset
            && (self.offset == 0 || self.head.is_of(File::open(file)?)?))
    }
}

/// The logs under one path, the oldest first; the last one grows.
#[derive(Debug)]
pub(super) struct Series {
    path: PathBuf,
    pub(super) waiting: VecDeque<Tail>,
    /// Logs that were read to their end, of which the scan may still need a part.
    read: VecDeque<Tail>,
    /// Whether the path is no more.
    pub(super) is_gone: bool,
}

impl Series {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, waiting: VecDeque::new(), read: VecDeque::new(), is_gone: false }
    }

    /// Looks at what became of the files; gives the number of logs that are lost because too many
    /// wait.
    pub(super) fn look(&mut self, state: &mut State, needed: Needed<'_>) -> io::Result<u64> {
        if let Some(last) = self.waiting.back_mut() {
            last.learn()?;
            if last.is_same(&self.path)? {
                return Ok(0);
            }
        }
        // What is under another name now is found by how far it was read.
        let positions = self.positions(needed);
        state.set(&self.path, positions);
        let known: Vec<_> = self.waiting.iter().map(|tail| tail.inode).collect();
        let real = fs::canonicalize(&self.path)?;
        for file in older(&real)?.iter().chain([&real]) {
            let metadata = fs::metadata(file)?;
            let inode = (metadata.dev(), metadata.ino());
            let is_current = *file == real;
            if known.contains(&inode) && !is_current {
                continue;
            }
            let tail = Tail::open(&self.path, file, state)?;
            let is_all_read =
                tail.offset >= metadata.len() && matches!(tail.reader, Reader::Plain(_));
            if is_current || !is_all_read {
                self.waiting.push_back(tail);
            }
        }
        // One that was truncated has nothing more under its old beginning.
        let current = self.waiting.back().map(|tail| tail.inode);
        let count = self.waiting.len();
        let mut at = 0;
        self.waiting.retain(|tail| {
            at += 1;
            at == count || Some(tail.inode) != current
        });
        let mut lost = 0;
        while self.waiting.len() > WAITING_MAX {
            self.waiting.pop_front();
            lost += 1;
        }
        Ok(lost)
    }

    /// Ends the first log, which was read to its end. The next one may hold the rest of a line.
    pub(super) fn end_first(&mut self, scan: &mut Scan, summary: &mut Recovered) {
        let Some(ended) = self.waiting.pop_front() else { return };
        match self.waiting.front() {
            Some(next) => scan.continue_log(&ended.name, &next.name),
            None => scan.end_log(&ended.name, summary),
        }
        self.read.push_back(ended);
    }

    /// How far each log has been read; what the scan still needs counts as not read.
    pub(super) fn positions(&mut self, needed: Needed<'_>) -> Vec<Position> {
        self.read.truncate(WAITING_MAX);
        let position = |tail: &Tail| Position {
            head: tail.head.clone(),
            offset: needed(&tail.name).map_or(tail.offset, |from| from.min(tail.offset)),
        };
        let all = self.read.iter().chain(&self.waiting).filter(|tail| tail.offset > 0);
        let all = all.map(position).collect();
        self.read.retain(|tail| needed(&tail.name).is_some());
        all
    }
}

/// The first byte of a log that the scan needs.
pub(super) type Needed<'a> = &'a dyn Fn(&Arc<str>) -> Option<u64>;

/// The files that rotation has made of a log, such as `0.log.20261127-161335.gz`, the oldest first.
fn older(real: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(dir), Some(name)) = (real.parent(), real.file_name()) else { return Ok(Vec::new()) };
    let start = format!("{}.", name.to_string_lossy());
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&start) {
            let metadata = fs::metadata(entry.path())?;
            if metadata.is_file() {
                found.push((metadata.modified()?, entry.path()));
            }
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}
