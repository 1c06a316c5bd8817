//! Reads pages of time buckets, the form in which OpenAI and Anthropic answer about costs and usage:
//! `{"data": [{..., "results": [{...}]}], "has_more": false}`.
//!
//! A file has one page or several: one after another, as lines, or in an array. It is read bucket by
//! bucket, whatever its length.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufRead, Read};
use std::rc::Rc;

use anyhow::{anyhow, bail};
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Deserializer;
use serde_json::value::RawValue;

use crate::bill::amount::{Amount, Written};

/// The largest part of a file without the end of a result, in bytes.
const PART_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// The most results of a bucket.
const RESULTS_MAX: usize = 100_000;

/// An object's members, each as it stands there.
#[derive(Debug, Default)]
pub(super) struct Members(BTreeMap<String, Box<RawValue>>);

/// A day, or a part of it.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    /// Where it stands, such as `data[2]`.
    pub(super) path: String,
    /// All members but the results.
    pub(super) members: Members,
    pub(super) results: Vec<Members>,
}

/// Reads a file, and gives each bucket to `each`. Returns whether the last page says that there is
/// one more.
pub(super) fn read(
    reader: impl BufRead,
    mut each: impl FnMut(Bucket) -> anyhow::Result<()>,
) -> anyhow::Result<bool> {
    let unread = Rc::new(Cell::new(0));
    let metered = Metered { reader, unread: Rc::clone(&unread) };
    let mut from = Deserializer::from_reader(metered);
    let mut state = State { unread, page: 0, has_more: false, failure: None, each: &mut each };
    loop {
        if from.end().is_ok() {
            break;
        }
        if let Err(error) = PagesSeed(&mut state).deserialize(&mut from) {
            return Err(state.failure.take().unwrap_or_else(|| failed(&error)));
        }
    }
    if state.page == 0 {
        bail!("the file is empty");
    }
    Ok(state.has_more)
}

fn failed(error: &serde_json::Error) -> anyhow::Error {
    if error.is_eof() { anyhow!("the file is cut: {error}") } else { anyhow!("{error}") }
}

/// Counts what comes in, and ends where a part has no end.
struct Metered<R> {
    reader: R,
    unread: Rc<Cell<u64>>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.unread.get() > PART_BYTES_MAX {
            return Err(io::Error::other("a result of more than 4 MiB"));
        }
        let read = self.reader.read(buffer)?;
        self.unread.set(self.unread.get().saturating_add(read as u64));
        Ok(read)
    }
}

struct State<'a> {
    unread: Rc<Cell<u64>>,
    page: u64,
    has_more: bool,
    /// What the caller did not take.
    failure: Option<anyhow::Error>,
    each: &'a mut dyn FnMut(Bucket) -> anyhow::Result<()>,
}

impl State<'_> {
    /// The path of a member of the page.
    fn path(&self, member: &str) -> String {
        if self.page > 1 { format!("page {}, {member}", self.page) } else { member.to_owned() }
    }
}

/// A page, or an array of them.
struct PagesSeed<'a, 'b>(&'a mut State<'b>);

impl<'de> DeserializeSeed<'de> for PagesSeed<'_, '_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for PagesSeed<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a page of buckets")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut pages: A) -> Result<(), A::Error> {
        while pages.next_element_seed(PagesSeed(&mut *self.0))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut page: A) -> Result<(), A::Error> {
        let state = self.0;
        state.page += 1;
        state.has_more = false;
        let mut has_data = false;
        while let Some(member) = page.next_key::<String>()? {
            match member.as_str() {
                "data" if has_data => return Err(A::Error::custom("data: stands there twice")),
                "data" => {
                    has_data = true;
                    page.next_value_seed(BucketsSeed(&mut *state))?;
                }
                "has_more" => state.has_more = page.next_value::<Option<bool>>()? == Some(true),
                _ => drop(page.next_value::<IgnoredAny>()?),
            }
        }
        if has_data { Ok(()) } else { Err(A::Error::custom("data: missing")) }
    }
}

struct BucketsSeed<'a, 'b>(&'a mut State<'b>);

impl<'de> DeserializeSeed<'de> for BucketsSeed<'_, '_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for BucketsSeed<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of buckets")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut buckets: A) -> Result<(), A::Error> {
        let state = self.0;
        let mut at = 0_u64;
        loop {
            let path = state.path(&format!("data[{at}]"));
            let seed = BucketSeed { path, unread: &state.unread };
            let Some(bucket) = buckets.next_element_seed(seed)? else { return Ok(()) };
            if let Err(error) = (state.each)(bucket) {
                state.failure = Some(error);
                return Err(A::Error::custom("refused"));
            }
            at += 1;
        }
    }
}

struct BucketSeed<'a> {
    path: String,
    unread: &'a Cell<u64>,
}

impl<'de> DeserializeSeed<'de> for BucketSeed<'_> {
    type Value = Bucket;

    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<Bucket, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for BucketSeed<'_> {
    type Value = Bucket;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a bucket")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Bucket, A::Error> {
        let mut bucket = Bucket { path: self.path, ..Bucket::default() };
        let mut has_results = false;
        while let Some(member) = from.next_key::<String>()? {
            let path = format!("{}.{member}", bucket.path);
            if member == "results" {
                if has_results {
                    return Err(A::Error::custom(format!("{path}: stands there twice")));
                }
                has_results = true;
                let seed = ResultsSeed { path, unread: self.unread };
                bucket.results = from.next_value_seed(seed)?;
            } else if bucket.members.0.insert(member, from.next_value()?).is_some() {
                return Err(A::Error::custom(format!("{path}: stands there twice")));
            }
        }
        self.unread.set(0);
        if has_results {
            return Ok(bucket);
        }
        Err(A::Error::custom(format!("{}.results: missing", bucket.path)))
    }
}

struct ResultsSeed<'a> {
    path: String,
    unread: &'a Cell<u64>,
}

impl<'de> DeserializeSeed<'de> for ResultsSeed<'_> {
    type Value = Vec<Members>;

    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<Vec<Members>, D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for ResultsSeed<'_> {
    type Value = Vec<Members>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of results")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Vec<Members>, A::Error> {
        let mut results = Vec::new();
        loop {
            let path = format!("{}[{}]", self.path, results.len());
            let Some(result) = from.next_element_seed(MembersSeed(path))? else {
                return Ok(results);
            };
            if results.len() == RESULTS_MAX {
                let most = format!("{}: more than {RESULTS_MAX} results", self.path);
                return Err(A::Error::custom(most));
            }
            self.unread.set(0);
            results.push(result);
        }
    }
}

/// An object, with its path.
struct MembersSeed(String);

impl<'de> DeserializeSeed<'de> for MembersSeed {
    type Value = Members;

    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<Members, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for MembersSeed {
    type Value = Members;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Members, A::Error> {
        let mut members = BTreeMap::new();
        while let Some(member) = from.next_key::<String>()? {
            let path = format!("{}.{member}", self.0);
            if members.insert(member, from.next_value()?).is_some() {
                return Err(A::Error::custom(format!("{path}: stands there twice")));
            }
        }
        Ok(Members(members))
    }
}

/// The same, whose error begins with the path of a member and of one in it.
pub(super) fn below<T>(member: &str, read: anyhow::Result<T>) -> anyhow::Result<T> {
    read.map_err(|error| anyhow!("{member}.{error:#}"))
}

impl Members {
    /// True if there is such a member, and it is not null.
    pub(super) fn has(&self, member: &str) -> bool {
        self.raw(member).is_some()
    }

    fn raw(&self, member: &str) -> Option<&str> {
        self.0.get(member).map(|raw| raw.get()).filter(|raw| *raw != "null")
    }

    /// Text; `None` if it is absent or null. An error begins with the path below the object.
    pub(super) fn text(&self, member: &str) -> anyhow::Result<Option<String>> {
        let Some(raw) = self.raw(member) else { return Ok(None) };
        let text = serde_json::from_str(raw);
        text.map(Some).map_err(|_| anyhow!("{member}: must be text, found {raw:.60}"))
    }

    /// Whether it is `true`.
    pub(super) fn flag(&self, member: &str) -> anyhow::Result<bool> {
        match self.raw(member) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(raw) => bail!("{member}: must be true or false, found {raw:.60}"),
        }
    }

    /// A decimal, as a number or as text; `None` if it is absent or null.
    pub(super) fn decimal(&self, member: &str, shift: i64) -> anyhow::Result<Option<Written>> {
        let Some(raw) = self.raw(member) else { return Ok(None) };
        let text = if raw.starts_with('"') { serde_json::from_str(raw).ok() } else { None };
        let text = text.unwrap_or_else(|| raw.to_owned());
        let read = Amount::parse(&text, shift);
        read.map(Some).map_err(|error| anyhow!("{member}: {error}, found {raw:.60}"))
    }

    /// A count of tokens; zero if it is absent or null.
    pub(super) fn count(&self, member: &str) -> anyhow::Result<Amount> {
        let read = self.decimal(member, 0)?.unwrap_or_default();
        if read.amount.is_negative() {
            bail!("{member}: must not be below zero, found {}", read.amount);
        }
        Ok(read.amount)
    }

    /// An object within this one; without members if it is absent or null.
    pub(super) fn object(&self, member: &str) -> anyhow::Result<Members> {
        let Some(raw) = self.raw(member) else { return Ok(Members::default()) };
        let read = MembersSeed(member.to_owned()).deserialize(&mut Deserializer::from_str(raw));
        read.map_err(|_| anyhow!("{member}: must be an object, found {raw:.60}"))
    }

    /// What tells this result from the others of its bucket: all words, but not the numbers.
    pub(super) fn identity(&self, amounts: &[&str]) -> String {
        let is_word = |raw: &str| raw.starts_with(['"', 't', 'f']);
        let mut identity = String::new();
        for (member, raw) in &self.0 {
            if is_word(raw.get()) && !amounts.contains(&member.as_str()) {
                identity.push_str(&format!("{member}={}\n", raw.get()));
            }
        }
        identity
    }
}
