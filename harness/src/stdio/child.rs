//! The process of a server that speaks stdio: lines to its stdin, lines from its stdout, and what it
//! says on stderr.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::Say;

/// The longest message that a server may send, in bytes.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// What of a line on stderr is shown, in bytes.
const SHOWN_BYTES_MAX: usize = 8 << 10;
/// Messages that wait for the server to read them.
const QUEUE: usize = 16;
/// How long a server may take to end once its stdin is closed, and again after SIGTERM.
const GRACE: Duration = Duration::from_secs(2);
/// How long the last lines on stderr may take; a process that the server left may hold it open.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// A server that runs. Dropped without [`Server::end`], it is killed.
#[derive(Debug)]
pub(super) struct Server {
    /// Counts the servers of a relay, from 1.
    pub(super) number: u64,
    child: Child,
    out: Lines<BufReader<ChildStdout>>,
    input: Option<mpsc::Sender<Vec<u8>>>,
    writing: JoinHandle<()>,
    telling: JoinHandle<()>,
}

impl Server {
    /// Starts `command`: the program and its arguments.
    pub(super) fn start(command: &[String], number: u64, say: &Say) -> anyhow::Result<Self> {
        let (program, arguments) = command.split_first().context("an empty command")?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A Ctrl-C is for the relay, which ends its servers in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        let stdin = child.stdin.take().context("no stdin")?;
        let out = Lines::new(BufReader::new(child.stdout.take().context("no stdout")?));
        let err = BufReader::new(child.stderr.take().context("no stderr")?);
        let (input, lines) = mpsc::channel(QUEUE);
        let writing = tokio::spawn(write(stdin, lines));
        let telling = tokio::spawn(tell(err, number, say.clone()));
        Ok(Self { number, child, out, input: Some(input), writing, telling })
    }

    /// Where messages to the server go. It is closed once the server reads no more.
    pub(super) fn input(&self) -> Option<mpsc::Sender<Vec<u8>>> {
        self.input.clone()
    }

    /// Has it ended already?
    pub(super) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// The next line of stdout; `None` at its end. It may be dropped and called again.
    pub(super) async fn line(&mut self) -> anyhow::Result<Option<Vec<u8>>> {
        self.out.next(MESSAGE_BYTES_MAX).await
    }

    /// Closes stdin once all senders of [`Server::input`] are gone, and waits for the end: two
    /// seconds, two more after SIGTERM, then SIGKILL. The signals go to whatever the server started.
    pub(super) async fn end(mut self) -> std::io::Result<ExitStatus> {
        self.input = None;
        let group = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        // What it still says has no reader any more, and must not hold it up.
        let out = self.out.reader;
        let draining = tokio::spawn(async move {
            let mut out = out;
            tokio::io::copy(&mut out, &mut tokio::io::sink()).await
        });
        let mut status = timeout(GRACE, self.child.wait()).await;
        self.writing.abort();
        if let (Err(_), Some(group)) = (&status, group) {
            // It fails if the group has ended by now, which is what it is for.
            let _ = kill_process_group(group, Signal::TERM);
            status = timeout(GRACE, self.child.wait()).await;
            if status.is_err() {
                let _ = kill_process_group(group, Signal::KILL);
            }
        }
        let status = match status {
            Ok(status) => status,
            Err(_) => self.child.wait().await,
        };
        let abort = self.telling.abort_handle();
        if timeout(LAST_WORDS, self.telling).await.is_err() {
            abort.abort();
        }
        draining.abort();
        status
    }
}

/// Writes each message as a line, until there are no more or nobody reads them.
async fn write(mut stdin: ChildStdin, mut lines: mpsc::Receiver<Vec<u8>>) {
    while let Some(mut line) = lines.recv().await {
        line.push(b'\n');
        if stdin.write_all(&line).await.is_err() {
            return;
        }
    }
}

/// Says each line of stderr.
async fn tell(err: impl AsyncBufRead + Unpin, number: u64, say: Say) {
    let mut lines = Lines::new(err);
    // A longer line is said in pieces.
    while let Ok(Some(piece)) = lines.piece(SHOWN_BYTES_MAX).await {
        say(format!("[server {number}] {}", String::from_utf8_lossy(&piece)));
    }
}

/// Reads lines of a bounded length.
#[derive(Debug)]
struct Lines<R> {
    reader: R,
    line: Vec<u8>,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    fn new(reader: R) -> Self {
        Self { reader, line: Vec::new() }
    }

    /// The next line; an error if it is longer than `bytes_max`.
    async fn next(&mut self, bytes_max: usize) -> anyhow::Result<Option<Vec<u8>>> {
        let line = self.piece(bytes_max + 1).await?;
        let is_short = line.as_ref().is_none_or(|line| line.len() <= bytes_max);
        ensure!(is_short, "a message of more than {bytes_max} bytes");
        Ok(line)
    }

    /// The next line, or the first `bytes_max` of one that is longer. The last line may lack its end.
    async fn piece(&mut self, bytes_max: usize) -> std::io::Result<Option<Vec<u8>>> {
        loop {
            let bytes = self.reader.fill_buf().await?;
            if bytes.is_empty() {
                let rest = std::mem::take(&mut self.line);
                return Ok((!rest.is_empty()).then_some(rest));
            }
            let room = &bytes[..bytes.len().min(bytes_max - self.line.len())];
            let end = room.iter().position(|byte| *byte == b'\n');
            let taken = end.unwrap_or(room.len());
            self.line.extend_from_slice(&room[..taken]);
            self.reader.consume(taken + usize::from(end.is_some()));
            if end.is_some() || self.line.len() >= bytes_max {
                return Ok(Some(std::mem::take(&mut self.line)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_have_a_bound_wherever_they_are_cut() {
        for size in 1..9 {
            let text = &b"ab\n\nabcd\nabcdefgh\nx"[..];
            let mut lines = Lines::new(BufReader::with_capacity(size, text));
            for expected in ["ab", "", "abcd"] {
                let line = lines.next(4).await.expect(expected).expect(expected);
                assert_eq!(line, expected.as_bytes());
            }
            let error = lines.next(4).await.expect_err("too long").to_string();
            assert_eq!(error, "a message of more than 4 bytes");
            let mut lines = Lines::new(BufReader::with_capacity(size, &b"abcdefgh\nx"[..]));
            for expected in ["abcd", "efgh", "", "x"] {
                let piece = lines.piece(4).await.expect(expected).expect(expected);
                assert_eq!(piece, expected.as_bytes(), "{size}");
            }
            assert_eq!(lines.piece(4).await.expect("the end"), None);
        }
    }
}
