//! Reads the generations out of what is said on a WebSocket: OpenAI's Responses and Realtime APIs
//! (read 2026-11). One connection makes many, one after another or, in lanes, side by side.
//!
//! To the next maintainer: a generation begins with the server's `response.created`, and ends with
//! the event that tells its final state, or with the connection. Deltas name no response but, at
//! most, a lane (`stream_id`; in the Realtime API `response_id`).

use crate::base::limits::SOCKET_LANES_MAX;
use crate::base::time::Timestamp;
use crate::protocol::document::Document;
use crate::protocol::document_reader::DocumentReader;
use crate::protocol::llm::generation::{Format, Generation, Stage};
use crate::protocol::llm::provider::openai::RESPONSES;
use crate::protocol::llm::realtime::REALTIME;
use crate::protocol::llm::{LlmRequestBody, Requested, runs};
use crate::protocol::path_tree::PathTree;
use crate::protocol::paths::{Field, Paths};
use crate::wire::json::Progress;
use crate::wire::websocket::{FramePart, FrameReader};

const LANE: &Paths = &[("stream_id", Field::Lane)];

/// Which API is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SocketApi {
    Responses,
    Realtime,
}

impl SocketApi {
    /// How its responses report usage.
    pub(crate) const fn format(self) -> &'static Format {
        match self {
            Self::Responses => &RESPONSES,
            Self::Realtime => &REALTIME,
        }
    }
}

/// What a client has asked for, and the server has not begun.
#[derive(Debug)]
struct Asked {
    lane: String,
    requested: Requested,
    tokens: u64,
    at: Timestamp,
}

/// A generation on a connection.
#[derive(Debug)]
pub(crate) struct SocketGeneration {
    /// Its number on the connection.
    pub(crate) number: u64,
    pub(crate) generation: Generation,
    pub(crate) requested: Requested,
    /// An estimate of the tokens in the client's message.
    pub(crate) asked_tokens: u64,
    pub(crate) started_at: Timestamp,
    lane: String,
}

/// What has happened on a connection.
#[derive(Debug)]
pub(crate) enum SocketEvent {
    /// The generation with this number began.
    Started(u64),
    Ended(Box<SocketGeneration>),
    /// The server refused what the client asked for.
    Refused,
}

/// Reads both directions of one connection.
#[derive(Debug)]
pub(crate) struct SocketReader {
    api: SocketApi,
    client: FrameReader,
    request: LlmRequestBody,
    server: FrameReader,
    reader: DocumentReader,
    asked: Vec<Asked>,
    open: Vec<SocketGeneration>,
    made: u64,
    /// The model of the session, and the one that transcribes what users say.
    model: Option<String>,
    transcriber: Option<String>,
    is_unread: bool,
}

impl SocketReader {
    /// Creates a reader for a connection on which this API is spoken.
    pub(crate) fn new(api: SocketApi, request: LlmRequestBody) -> Self {
        let tables: Vec<&'static Paths> = match api {
            SocketApi::Responses => api.format().paths.iter().copied().chain([LANE]).collect(),
            SocketApi::Realtime => api.format().paths.to_vec(),
        };
        Self {
            api,
            client: FrameReader::default(),
            request,
            server: FrameReader::default(),
            reader: DocumentReader::new(PathTree::new(&tables)),
            asked: Vec::new(),
            open: Vec::new(),
            made: 0,
            model: None,
            transcriber: None,
            is_unread: false,
        }
    }

    /// Notes that an extension was agreed upon, so that messages may be compressed.
    pub(crate) fn has_extension(&mut self) {
        self.is_unread = true;
    }

    /// Whether something of what was said could not be read, so that there may be more generations.
    pub(crate) fn is_unread(&self) -> bool {
        self.is_unread || self.server.is_broken()
    }

    /// Reads the next bytes of the client.
    pub(crate) fn feed_client(&mut self, chunk: &[u8], now: Timestamp) {
        let Self { api, client, request, asked, .. } = self;
        client.feed(chunk, &mut |part| match part {
            FramePart::Data(piece) => request.feed(piece),
            FramePart::End => {
                let requested = request.requested();
                let is_creation = requested.kind.as_deref() == Some("response.create");
                if is_creation && *api == SocketApi::Responses {
                    if asked.len() >= SOCKET_LANES_MAX {
                        asked.remove(0);
                    }
                    let lane = requested.lane.clone().unwrap_or_default();
                    asked.push(Asked { lane, requested, tokens: request.tokens(), at: now });
                }
                request.restart();
            }
            // The server tells what it has made of it.
            FramePart::Unreadable => {}
        });
    }

    /// Reads the next bytes of the server. Returns what has happened.
    pub(crate) fn feed_server(&mut self, chunk: &[u8], now: Timestamp) -> Vec<SocketEvent> {
        let mut events = Vec::new();
        let mut server = core::mem::take(&mut self.server);
        server.feed(chunk, &mut |part| match part {
            FramePart::Data(piece) => {
                self.reader.feed(piece, &mut |_| {});
            }
            FramePart::End => {
                let is_whole = self.reader.progress() == Progress::Complete;
                if is_whole && self.reader.document().is_object() {
                    let document = core::mem::take(self.reader.document_mut());
                    self.message(&document, now, &mut events);
                } else {
                    self.is_unread = true;
                }
                self.reader.restart();
            }
            FramePart::Unreadable => self.is_unread = true,
        });
        self.server = server;
        events
    }

    /// Ends the connection. Returns what was under way.
    pub(crate) fn end(&mut self) -> Vec<SocketGeneration> {
        core::mem::take(&mut self.open).into_iter().map(|it| self.ended(it)).collect()
    }

    fn message(&mut self, document: &Document, now: Timestamp, events: &mut Vec<SocketEvent>) {
        let text = |field| document.text(field).map(|text| text.into_owned());
        let kind = text(Field::Kind).unwrap_or_default();
        let lane = match self.api {
            SocketApi::Responses => text(Field::Lane),
            SocketApi::Realtime => text(Field::Lane).or_else(|| text(Field::Id)),
        };
        let lane = lane.unwrap_or_default();
        match kind.as_str() {
            "session.created" | "session.updated" => {
                self.model = text(Field::Model).or(self.model.take());
                self.transcriber = text(Field::Transcriber).or(self.transcriber.take());
            }
            "error" => {
                if let Some(at) = self.asked.iter().position(|asked| asked.lane == lane) {
                    self.asked.remove(at);
                    events.push(SocketEvent::Refused);
                }
            }
            "conversation.item.input_audio_transcription.completed" => {
                let mut made = self.begin(lane, now, events);
                made.requested.model = self.transcriber.clone();
                made.generation.apply(self.api.format().fold, document);
                events.push(SocketEvent::Ended(Box::new(made)));
            }
            "response.created" => {
                // What was under way there has ended unseen.
                self.close(&lane, events);
                let mut made = self.begin(lane, now, events);
                made.generation.apply(self.api.format().fold, document);
                if self.open.len() < SOCKET_LANES_MAX {
                    self.open.push(made);
                } else {
                    self.is_unread = true;
                    events.push(SocketEvent::Ended(Box::new(self.ended(made))));
                }
            }
            _ if kind.starts_with("response.") => {
                let fold = self.api.format().fold;
                if let Some(open) = self.open.iter_mut().find(|open| open.lane == lane) {
                    open.generation.apply(fold, document);
                    if open.generation.stage == Stage::Final {
                        self.close(&lane, events);
                    }
                    return;
                }
                // Its beginning was not seen.
                let mut generation = Generation::default();
                generation.apply(fold, document);
                if generation.stage == Stage::Final {
                    let made = self.begin(lane, now, events);
                    let made = SocketGeneration { generation, ..made };
                    events.push(SocketEvent::Ended(Box::new(self.ended(made))));
                }
            }
            _ => {}
        }
    }

    fn begin(
        &mut self,
        lane: String,
        now: Timestamp,
        events: &mut Vec<SocketEvent>,
    ) -> SocketGeneration {
        let number = self.made;
        self.made = number.saturating_add(1);
        events.push(SocketEvent::Started(number));
        let at = self.asked.iter().position(|asked| asked.lane == lane);
        let asked = at.map(|at| self.asked.remove(at));
        let started_at = asked.as_ref().map_or(now, |asked| asked.at);
        let (requested, asked_tokens) =
            asked.map(|asked| (asked.requested, asked.tokens)).unwrap_or_default();
        let generation = Generation { is_streamed: true, ..Generation::default() };
        SocketGeneration { number, generation, requested, asked_tokens, started_at, lane }
    }

    fn close(&mut self, lane: &str, events: &mut Vec<SocketEvent>) {
        let Some(at) = self.open.iter().position(|open| open.lane == lane) else { return };
        let made = self.open.remove(at);
        events.push(SocketEvent::Ended(Box::new(self.ended(made))));
    }

    fn ended(&self, mut made: SocketGeneration) -> SocketGeneration {
        runs::finish(&mut made.generation);
        if self.api == SocketApi::Realtime {
            made.generation.model = self.model.clone();
        }
        made
    }
}
