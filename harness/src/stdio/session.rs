//! A session: what its client waits for, and which stream each message of its server takes.
//!
//! stdio does not tell which request a message belongs to. A response goes to its request, and
//! progress to the request with its token. Anything else goes to the only open request, else to the
//! client's own stream (GET), else to the newest request, and waits while there is none of them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use super::Say;
use super::message::{self, Id, Message};

/// Requests of a session that are open at once.
const OPEN_MAX: usize = 256;
/// Messages that wait until a client reads its stream.
const QUEUE: usize = 16;
/// Messages that wait for a stream, and their bytes.
const WAITING_MAX: usize = 256;
const WAITING_BYTES_MAX: usize = 4 << 20;
/// How long a client may leave its full stream unread: the server waits as long.
const READ_LIMIT: Duration = Duration::from_secs(30);
/// How long a cancelled request may still be answered.
const CANCEL_GRACE: Duration = Duration::from_secs(2);
/// JSON-RPC's code of a server that is gone, as in the SDKs of TypeScript and Python.
pub(super) const GONE: i32 = -32000;

/// What a client and its server have open.
#[derive(Debug)]
pub(super) struct Session {
    state: Mutex<State>,
    ending: watch::Sender<bool>,
}

#[derive(Debug)]
struct State {
    /// To the server; `None` once the session has ended.
    input: Option<mpsc::Sender<Vec<u8>>>,
    open: BTreeMap<Id, Open>,
    /// The client's own stream.
    own: Option<Streamed>,
    waiting: VecDeque<Vec<u8>>,
    last_used: Instant,
    /// The request that began the session, until it is answered.
    beginning: Option<Id>,
    streams: u64,
}

#[derive(Debug)]
struct Open {
    stream: Streamed,
    progress: Option<Id>,
    /// Whether its stream takes other messages than its response.
    takes_others: bool,
    is_cancelled: bool,
}

/// The writing end of a stream. Later streams have higher numbers.
#[derive(Debug, Clone)]
struct Streamed {
    number: u64,
    sender: mpsc::Sender<Vec<u8>>,
}

/// Why a stream does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// The session has ended.
    Gone,
    /// A request with this id is open.
    SameId,
    /// Too many requests are open.
    Full,
    /// The client has its own stream already.
    Taken,
}

/// Messages for a client. Dropped, its request waits no longer.
#[derive(Debug)]
pub(super) struct Stream {
    waited: VecDeque<Vec<u8>>,
    receiver: mpsc::Receiver<Vec<u8>>,
    session: Arc<Session>,
    number: u64,
    request: Option<Id>,
}

impl Session {
    /// A session whose client sends `initialize` as the request `beginning`.
    pub(super) fn new(input: Option<mpsc::Sender<Vec<u8>>>, beginning: Id) -> Self {
        let state = State {
            input,
            open: BTreeMap::new(),
            own: None,
            waiting: VecDeque::new(),
            last_used: Instant::now(),
            beginning: Some(beginning),
            streams: 0,
        };
        Self { state: Mutex::new(state), ending: watch::Sender::new(false) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the stream of a request.
    pub(super) fn open(
        self: &Arc<Self>,
        id: &Id,
        progress: Option<Id>,
        takes_others: bool,
    ) -> Result<Stream, Refused> {
        let mut state = self.state();
        if state.input.is_none() {
            return Err(Refused::Gone);
        }
        if state.open.contains_key(id) {
            return Err(Refused::SameId);
        }
        if state.open.len() >= OPEN_MAX {
            return Err(Refused::Full);
        }
        let (stream, receiver) = state.stream();
        let waited =
            if takes_others { std::mem::take(&mut state.waiting) } else { VecDeque::new() };
        let (number, session) = (stream.number, self.clone());
        let open = Open { stream, progress, takes_others, is_cancelled: false };
        state.open.insert(id.clone(), open);
        Ok(Stream { waited, receiver, session, number, request: Some(id.clone()) })
    }

    /// Opens the client's own stream.
    pub(super) fn open_own(self: &Arc<Self>) -> Result<Stream, Refused> {
        let mut state = self.state();
        if state.input.is_none() {
            return Err(Refused::Gone);
        }
        if state.own.is_some() {
            return Err(Refused::Taken);
        }
        let (stream, receiver) = state.stream();
        let (number, session) = (stream.number, self.clone());
        state.own = Some(stream);
        let waited = std::mem::take(&mut state.waiting);
        Ok(Stream { waited, receiver, session, number, request: None })
    }

    /// Hands a message to the server, as soon as it takes it.
    pub(super) async fn send(&self, line: Vec<u8>) -> Result<(), Refused> {
        let input = self.state().input.clone().ok_or(Refused::Gone)?;
        input.send(line).await.map_err(|_| Refused::Gone)
    }

    /// The client no longer wants an answer: the stream ends soon, also without one.
    pub(super) fn cancel(self: &Arc<Self>, id: Id) {
        let mut state = self.state();
        let Some(open) = state.open.get_mut(&id).filter(|open| !open.is_cancelled) else { return };
        open.is_cancelled = true;
        let (number, session) = (open.stream.number, self.clone());
        tokio::spawn(async move {
            sleep(CANCEL_GRACE).await;
            session.state().close(number, Some(&id));
        });
    }

    /// Brings a message of the server to the client.
    pub(super) async fn bring(&self, message: &Message, line: Vec<u8>, say: &Say) {
        let is_response = matches!(message, Message::Response { id: Some(_), .. });
        let stream = {
            let mut state = self.state();
            state.last_used = Instant::now();
            match message {
                Message::Response { id: Some(id), is_error } => {
                    if state.beginning.as_ref() == Some(id) {
                        state.beginning = None;
                        // Without a beginning there is no session.
                        if *is_error {
                            self.end();
                        }
                    }
                    // Who has left waits for nothing.
                    let Some(open) = state.open.remove(id) else { return };
                    Some(open.stream)
                }
                Message::Notification { progress: Some(token), .. } => {
                    state.of_token(token).or_else(|| state.of_any())
                }
                _ => state.of_any(),
            }
        };
        let Some(stream) = stream else {
            self.state().wait(line, say);
            return;
        };
        let Streamed { number, sender } = stream;
        match timeout(READ_LIMIT, sender.reserve()).await {
            Ok(Ok(permit)) => permit.send(line),
            // Its client has left.
            Ok(Err(_)) if is_response => {}
            Ok(Err(_)) => self.state().wait(line, say),
            Err(_) => {
                say(format!(
                    "warning: a client has not read its stream for {READ_LIMIT:?}; it is closed"
                ));
                let mut state = self.state();
                let ids = state.open.iter().filter(|(_, open)| open.stream.number == number);
                let id = ids.map(|(id, _)| id.clone()).next();
                state.close(number, id.as_ref());
            }
        }
    }

    /// Ends the session; whoever attends to it does the rest.
    pub(super) fn end(&self) {
        self.ending.send_replace(true);
    }

    /// Waits until the session has to end.
    pub(super) async fn ending(&self) {
        let mut ending = self.ending.subscribe();
        // The sender lives as long as `self`.
        let _ = ending.wait_for(|is_ending| *is_ending).await;
    }

    /// When the session will have been idle for so long. While anything is open, it is not.
    pub(super) fn idle_at(&self, idle: Duration) -> Instant {
        let mut state = self.state();
        if !state.open.is_empty() || state.own.is_some() {
            state.last_used = Instant::now();
        }
        state.last_used + idle
    }

    /// The client has sent something.
    pub(super) fn touch(&self) {
        self.state().last_used = Instant::now();
    }

    /// Closes every stream, and answers each open request with an error. Returns how many.
    pub(super) fn close(&self) -> usize {
        let open = {
            let mut state = self.state();
            state.input = None;
            state.own = None;
            state.waiting.clear();
            std::mem::take(&mut state.open)
        };
        for (id, Open { stream, .. }) in &open {
            let error = message::error(Some(id), GONE, "the MCP server has ended");
            // A stream that its client does not read ends without.
            let _ = stream.sender.try_send(error);
        }
        open.len()
    }
}

impl State {
    fn stream(&mut self) -> (Streamed, mpsc::Receiver<Vec<u8>>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        self.streams += 1;
        self.last_used = Instant::now();
        (Streamed { number: self.streams, sender }, receiver)
    }

    /// The stream of the request with this progress token.
    fn of_token(&self, token: &Id) -> Option<Streamed> {
        let is_it = |open: &&Open| open.takes_others && open.progress.as_ref() == Some(token);
        self.open.values().find(is_it).map(|open| open.stream.clone())
    }

    /// The stream of a message that tells of no request.
    fn of_any(&self) -> Option<Streamed> {
        let open = || self.open.values().filter(|open| open.takes_others).map(|open| &open.stream);
        let newest = || open().max_by_key(|stream| stream.number);
        let only = newest().filter(|_| open().count() == 1);
        only.or(self.own.as_ref()).or_else(newest).cloned()
    }

    /// Keeps a message for the next stream.
    fn wait(&mut self, line: Vec<u8>, say: &Say) {
        if self.input.is_none() {
            return;
        }
        self.waiting.push_back(line);
        let bytes = |waiting: &VecDeque<Vec<u8>>| waiting.iter().map(Vec::len).sum::<usize>();
        while self.waiting.len() > WAITING_MAX || bytes(&self.waiting) > WAITING_BYTES_MAX {
            self.waiting.pop_front();
            say("warning: a client opens no stream; the oldest message for it is dropped"
                .to_owned());
        }
    }

    fn close(&mut self, number: u64, request: Option<&Id>) {
        match request {
            Some(id) => {
                if self.open.get(id).is_some_and(|open| open.stream.number == number) {
                    self.open.remove(id);
                }
            }
            None => self.own = self.own.take().filter(|own| own.number != number),
        }
        self.last_used = Instant::now();
    }
}

impl Stream {
    /// The next message; `None` at the end. It may be dropped and called again.
    pub(super) async fn next(&mut self) -> Option<Vec<u8>> {
        match self.waited.pop_front() {
            Some(line) => Some(line),
            None => self.receiver.recv().await,
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut state = self.session.state();
        state.close(self.number, self.request.as_ref());
        // What only waited for a stream may take the next one.
        while let Some(line) = self.waited.pop_back() {
            state.waiting.push_front(line);
        }
    }
}
