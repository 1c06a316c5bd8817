//! The state of the host: what Envoy knows of a stream, shared data, metrics, and what is counted.

use std::collections::{BTreeMap, BTreeSet};

use wasmtime::{Memory, TypedFunc};

/// The list of headers of one map.
pub(crate) type Headers = Vec<(String, Vec<u8>)>;

/// Proxy-Wasm's numbers of maps and buffers, as far as the module uses them.
pub(crate) const REQUEST_HEADERS: u32 = 0;
pub(crate) const RESPONSE_HEADERS: u32 = 2;
pub(crate) const REPLY_HEADERS: u32 = 6;
pub(crate) const REQUEST_BODY: u32 = 0;
pub(crate) const RESPONSE_BODY: u32 = 1;
pub(crate) const REPLY_BODY: u32 = 4;
pub(crate) const CONFIGURATION: u32 = 7;

/// A request to the collector.
#[derive(Debug)]
pub(crate) struct Dispatch {
    pub(crate) token: u32,
    pub(crate) body: Vec<u8>,
}

/// Everything outside of the module.
#[derive(Default)]
pub(crate) struct Host {
    pub(crate) memory: Option<Memory>,
    pub(crate) allocate: Option<TypedFunc<u32, u32>>,
    pub(crate) clock_ns: u64,
    /// How often the module's timer fires.
    pub(crate) tick_period_ns: u64,
    pub(crate) shared_data: BTreeMap<Vec<u8>, (Vec<u8>, u32)>,
    pub(crate) last_version: u32,
    pub(crate) metrics: BTreeSet<Vec<u8>>,
    /// Properties that hold for the whole process.
    pub(crate) properties: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Names of the properties that can be set only once.
    pub(crate) read_only: BTreeSet<Vec<u8>>,
    pub(crate) dispatches: Vec<Dispatch>,
    pub(crate) last_token: u32,
    /// What Envoy shows of the stream, or of the reply, that is at hand.
    pub(crate) filter_state: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) maps: BTreeMap<u32, Headers>,
    pub(crate) buffers: BTreeMap<u32, Vec<u8>>,
    /// The status with which the module answered the stream itself.
    pub(crate) answered: Option<u32>,
    pub(crate) log: Vec<String>,
    pub(crate) calls: BTreeMap<&'static str, u64>,
    pub(crate) copied_bytes: u64,
    pub(crate) allocations: u64,
}

impl Host {
    /// Forgets the stream that is over.
    pub(crate) fn next_stream(&mut self) {
        self.filter_state.clear();
        self.maps.clear();
        self.buffers.remove(&REQUEST_BODY);
        self.buffers.remove(&RESPONSE_BODY);
        self.answered = None;
    }

    pub(crate) fn get_property(&self, path: &[u8]) -> Option<Vec<u8>> {
        self.filter_state.get(path).or_else(|| self.properties.get(path)).cloned()
    }

    /// Sets a property of the stream; false if it is there already and may be set only once.
    pub(crate) fn set_property(&mut self, path: &[u8], value: &[u8]) -> bool {
        if self.read_only.contains(path) && self.filter_state.contains_key(path) {
            return false;
        }
        self.filter_state.insert(path.to_vec(), value.to_vec());
        true
    }

    /// Envoy's odd rules: version 0 writes whatever is there, and a key that does not exist is
    /// written whatever version is given.
    pub(crate) fn set_shared_data(&mut self, key: &[u8], value: &[u8], version: u32) -> bool {
        let found = self.shared_data.get(key).map(|(_, version)| *version);
        if version != 0 && found.is_some_and(|found| found != version) {
            return false;
        }
        self.last_version += 1;
        self.shared_data.insert(key.to_vec(), (value.to_vec(), self.last_version));
        true
    }

    pub(crate) fn header(&mut self, map: u32, name: &[u8], value: Option<&[u8]>, replaces: bool) {
        let headers = self.maps.entry(map).or_default();
        if replaces {
            headers.retain(|(other, _)| other.as_bytes() != name);
        }
        let name = String::from_utf8_lossy(name).into_owned();
        headers.extend(value.map(|value| (name, value.to_vec())));
    }

    /// A map in the form in which Proxy-Wasm passes it.
    pub(crate) fn serialized(&self, map: u32) -> Vec<u8> {
        let none = Vec::new();
        let headers = self.maps.get(&map).unwrap_or(&none);
        let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes();
        let mut bytes = number(headers.len()).to_vec();
        for (name, value) in headers {
            bytes.extend(number(name.len()));
            bytes.extend(number(value.len()));
        }
        for (name, value) in headers {
            bytes.extend(name.as_bytes().iter().chain(&[0]).chain(value).chain(&[0]));
        }
        bytes
    }
}
