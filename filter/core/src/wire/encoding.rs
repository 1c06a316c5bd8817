//! Content codings of a body (RFC 9110, section 8.4.1): plain, gzip (RFC 1952) and deflate (zlib, RFC 1950, or, as
//! some servers send it, RFC 1951 without a frame). The body that passes is not touched; this decodes a copy.

use std::io::{self, Write};

use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

use crate::limits::{DECODED_BYTES_FREE, DECODED_RATIO_MAX};
use crate::units::count;

/// How a body is coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentCoding {
    /// Not at all.
    Identity,
    /// gzip.
    Gzip,
    /// deflate.
    Deflate,
    /// A coding that is not read, or several.
    Other,
}

impl ContentCoding {
    /// Reads a `content-encoding` header; codings are case-insensitive.
    pub fn parse(value: Option<&[u8]>) -> Self {
        let name = value.unwrap_or_default().trim_ascii();
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        if name.is_empty() || is("identity") {
            Self::Identity
        } else if is("gzip") || is("x-gzip") {
            Self::Gzip
        } else if is("deflate") {
            Self::Deflate
        } else {
            Self::Other
        }
    }
}

/// Takes a decoded body piece by piece.
pub trait Sink {
    /// The next bytes.
    fn decoded(&mut self, piece: &[u8]);
}

/// Counts what is decoded, and refuses what a small body blows up to.
#[derive(Debug)]
struct Bounded<S> {
    sink: S,
    bytes_in: u64,
    bytes_out: u64,
}

impl<S: Sink> Write for Bounded<S> {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.bytes_out = self.bytes_out.saturating_add(count(piece.len()));
        let bytes_max =
            self.bytes_in.saturating_mul(DECODED_RATIO_MAX).saturating_add(DECODED_BYTES_FREE);
        if self.bytes_out > bytes_max {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.sink.decoded(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
enum State<S: Sink> {
    Identity(Bounded<S>),
    Gzip(Box<MultiGzDecoder<Bounded<S>>>),
    /// The first byte tells whether there is a zlib frame.
    DeflateUnseen(Option<Bounded<S>>),
    Zlib(Box<ZlibDecoder<Bounded<S>>>),
    Deflate(Box<DeflateDecoder<Bounded<S>>>),
}

/// Decodes one body, chunk by chunk, into a sink, in about 45 KiB of memory for a coded body.
#[derive(Debug)]
pub struct Decoder<S: Sink> {
    state: State<S>,
    is_broken: bool,
}

impl<S: Sink> Decoder<S> {
    /// A decoder for a body, or the sink again if the coding is not read.
    pub fn new(coding: ContentCoding, sink: S) -> Result<Self, S> {
        let sink = Bounded { sink, bytes_in: 0, bytes_out: 0 };
        let state = match coding {
            ContentCoding::Identity => State::Identity(sink),
            ContentCoding::Gzip => State::Gzip(Box::new(MultiGzDecoder::new(sink))),
            ContentCoding::Deflate => State::DeflateUnseen(Some(sink)),
            ContentCoding::Other => return Err(sink.sink),
        };
        Ok(Self { state, is_broken: false })
    }

    /// Decodes the next bytes; everything that they tell has reached the sink when this returns.
    pub fn feed(&mut self, chunk: &[u8]) {
        if self.is_broken || chunk.is_empty() {
            return;
        }
        if let State::DeflateUnseen(sink) = &mut self.state
            && let (Some(sink), Some(first)) = (sink.take(), chunk.first())
        {
            // RFC 1950: the low half of the first byte is 8; no raw deflate block begins so in practice.
            self.state = if first & 0x0F == 8 {
                State::Zlib(Box::new(ZlibDecoder::new(sink)))
            } else {
                State::Deflate(Box::new(DeflateDecoder::new(sink)))
            };
        }
        if let Some(sink) = self.bounded() {
            sink.bytes_in = sink.bytes_in.saturating_add(count(chunk.len()));
        }
        let decoded = match &mut self.state {
            State::Identity(sink) => {
                sink.sink.decoded(chunk);
                Ok(())
            }
            State::Gzip(decoder) => decoder.write_all(chunk).and_then(|()| decoder.flush()),
            State::Zlib(decoder) => decoder.write_all(chunk).and_then(|()| decoder.flush()),
            State::Deflate(decoder) => decoder.write_all(chunk).and_then(|()| decoder.flush()),
            State::DeflateUnseen(_) => Ok(()),
        };
        self.is_broken = decoded.is_err();
    }

    /// The sink.
    pub fn sink(&mut self) -> Option<&mut S> {
        self.bounded().map(|bounded| &mut bounded.sink)
    }

    /// Whether the body could not be decoded, or blows up too much.
    pub fn is_broken(&self) -> bool {
        self.is_broken
    }

    fn bounded(&mut self) -> Option<&mut Bounded<S>> {
        match &mut self.state {
            State::Identity(sink) => Some(sink),
            State::Gzip(decoder) => Some(decoder.get_mut()),
            State::DeflateUnseen(sink) => sink.as_mut(),
            State::Zlib(decoder) => Some(decoder.get_mut()),
            State::Deflate(decoder) => Some(decoder.get_mut()),
        }
    }
}
