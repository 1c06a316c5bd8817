//! Content codings of a body (RFC 9110, section 8.4.1): plain, gzip (RFC 1952) and deflate (zlib,
//! RFC 1950, or, as some servers send it, RFC 1951 without a frame). The filter decodes a copy and
//! does not change the body that passes.

use core::cell::{RefCell, RefMut};
use core::fmt;
use std::io;
use std::io::Write;
use std::rc::Rc;

use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

use crate::base::limits::{DECODED_BYTES_FREE, DECODED_BYTES_MAX, DECODED_RATIO_MAX};
use crate::base::time::len_u64;
use crate::wire::decode_budget::DecodeShare;
use crate::wire::doubt::Doubt;
use crate::wire::headers::Headers;

/// How a body is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentCoding {
    /// The body is not encoded.
    Identity,
    /// gzip.
    Gzip,
    /// deflate.
    Deflate,
    /// br (RFC 7932).
    #[cfg(feature = "br")]
    Br,
    /// A coding that the filter cannot read, or several codings.
    Other,
}

impl ContentCoding {
    /// Reads the `content-encoding` of a head: all lines, as lists. Codings are case-insensitive.
    pub fn of(headers: Headers<'_>) -> Self {
        let lines = headers.all("content-encoding");
        let codings = lines.flat_map(|line| line.split(|byte| *byte == b','));
        let mut found = Self::Identity;
        for coding in codings.map(Self::parse).filter(|coding| *coding != Self::Identity) {
            found = if found == Self::Identity { coding } else { Self::Other };
        }
        found
    }

    fn parse(name: &[u8]) -> Self {
        let name = name.trim_ascii();
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        if name.is_empty() || is("identity") {
            Self::Identity
        } else if is("gzip") || is("x-gzip") {
            Self::Gzip
        } else if is("deflate") {
            Self::Deflate
        } else {
            #[cfg(feature = "br")]
            if is("br") {
                return Self::Br;
            }
            Self::Other
        }
    }
}

/// Receives a decoded body piece by piece.
pub(crate) trait DecodedBytes {
    /// The next bytes.
    fn decoded(&mut self, piece: &[u8]);
}

/// Counts the decoded bytes, and stops a body that expands too much. The sink is not a type
/// parameter, because the module would then contain the decoders once for each type of sink.
struct Bounded {
    sink: Rc<RefCell<dyn DecodedBytes>>,
    share: DecodeShare,
    bytes_in: u64,
    bytes_out: u64,
}

impl fmt::Debug for Bounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bounded").finish_non_exhaustive()
    }
}

impl Write for Bounded {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.bytes_out = self.bytes_out.saturating_add(len_u64(piece.len()));
        let bytes_max =
            self.bytes_in.saturating_mul(DECODED_RATIO_MAX).saturating_add(DECODED_BYTES_FREE);
        if self.bytes_out > bytes_max.min(DECODED_BYTES_MAX)
            || !self.share.take(len_u64(piece.len()))
        {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.sink.borrow_mut().decoded(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Decoded bytes that the decoder of br passes on at once.
#[cfg(feature = "br")]
const BR_BUFFER_BYTES: usize = 4096;

#[derive(Debug)]
enum State {
    Identity,
    Gzip(Box<MultiGzDecoder<Bounded>>),
    /// The first byte shows whether the body has a zlib frame.
    DeflateUnseen(Option<Bounded>),
    Zlib(Box<ZlibDecoder<Bounded>>),
    Deflate(Box<DeflateDecoder<Bounded>>),
    #[cfg(feature = "br")]
    Br(Box<BrDecoder>),
}

/// Decodes br. The decoder itself has no `Debug`.
#[cfg(feature = "br")]
struct BrDecoder(brotli_decompressor::DecompressorWriter<Bounded>);

#[cfg(feature = "br")]
impl fmt::Debug for BrDecoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrDecoder").finish_non_exhaustive()
    }
}

/// Decodes one body, chunk by chunk, into a sink. An encoded body takes about 45 KiB of memory.
#[derive(Debug)]
pub(crate) struct Decoder<S: DecodedBytes> {
    sink: Rc<RefCell<S>>,
    state: State,
    failure: Option<Doubt>,
}

impl<S: DecodedBytes + 'static> Decoder<S> {
    /// A decoder for a body. `Err` returns the sink if the filter cannot read the coding.
    pub(crate) fn new(coding: ContentCoding, sink: S) -> Result<Self, S> {
        if coding == ContentCoding::Other {
            return Err(sink);
        }
        let sink = Rc::new(RefCell::new(sink));
        let written: Rc<RefCell<dyn DecodedBytes>> = Rc::<RefCell<S>>::clone(&sink);
        let bounded =
            Bounded { sink: written, share: DecodeShare::default(), bytes_in: 0, bytes_out: 0 };
        let state = match coding {
            ContentCoding::Identity | ContentCoding::Other => State::Identity,
            ContentCoding::Gzip => State::Gzip(Box::new(MultiGzDecoder::new(bounded))),
            ContentCoding::Deflate => State::DeflateUnseen(Some(bounded)),
            #[cfg(feature = "br")]
            ContentCoding::Br => State::Br(Box::new(BrDecoder(
                brotli_decompressor::DecompressorWriter::new(bounded, BR_BUFFER_BYTES),
            ))),
        };
        Ok(Self { sink, state, failure: None })
    }

    /// Lets the decoder decode no more than this share allows.
    pub(crate) fn limit(&mut self, share: &DecodeShare) {
        if let Some(bounded) = self.state.bounded() {
            bounded.share = share.clone();
        }
    }

    /// Decodes the next bytes. When this function returns, the sink has received everything that
    /// they contain.
    pub(crate) fn feed(&mut self, chunk: &[u8]) {
        if self.failure.is_some() || chunk.is_empty() {
            return;
        }
        match &self.state {
            State::Identity => self.sink.borrow_mut().decoded(chunk),
            _ => {
                let failure = self.state.decode(chunk).err().map(|error| error.kind());
                self.failure = failure.map(|kind| match kind {
                    io::ErrorKind::FileTooLarge => Doubt::TooLarge,
                    _ => Doubt::Undecodable,
                });
            }
        }
    }

    /// The sink.
    pub(crate) fn sink(&mut self) -> RefMut<'_, S> {
        self.sink.borrow_mut()
    }

    /// Why the decoder stopped; `None` while it decodes.
    pub(crate) fn failure(&self) -> Option<Doubt> {
        self.failure
    }

    /// True if the decoder could not decode the body, or if the body expands too much.
    pub(crate) fn is_broken(&self) -> bool {
        self.failure.is_some()
    }
}

impl State {
    fn decode(&mut self, chunk: &[u8]) -> io::Result<()> {
        if let Self::DeflateUnseen(sink) = self
            && let (Some(sink), Some(first)) = (sink.take(), chunk.first())
        {
            // RFC 1950: the low half of the first byte is 8; raw deflate does not begin so in
            // practice.
            *self = if first & 0x0F == 8 {
                Self::Zlib(Box::new(ZlibDecoder::new(sink)))
            } else {
                Self::Deflate(Box::new(DeflateDecoder::new(sink)))
            };
        }
        if let Some(sink) = self.bounded() {
            sink.bytes_in = sink.bytes_in.saturating_add(len_u64(chunk.len()));
        }
        match self {
            Self::Gzip(decoder) => decoder.write_all(chunk).and_then(|()| decoder.flush()),
            Self::Zlib(decoder) => decoder.write_all(chunk).and_then(|()| decoder.flush()),
            Self::Deflate(decoder) => decoder.write_all(chunk).and_then(|()| decoder.flush()),
            #[cfg(feature = "br")]
            Self::Br(decoder) => decoder.0.write_all(chunk).and_then(|()| decoder.0.flush()),
            Self::Identity | Self::DeflateUnseen(_) => Ok(()),
        }
    }

    fn bounded(&mut self) -> Option<&mut Bounded> {
        match self {
            Self::Identity => None,
            Self::Gzip(decoder) => Some(decoder.get_mut()),
            Self::DeflateUnseen(sink) => sink.as_mut(),
            Self::Zlib(decoder) => Some(decoder.get_mut()),
            Self::Deflate(decoder) => Some(decoder.get_mut()),
            #[cfg(feature = "br")]
            Self::Br(decoder) => Some(decoder.0.get_mut()),
        }
    }
}
