//! The chosen members of a JSON document: see [`crate::protocol::document_reader`].

use std::borrow::Cow;

use rust_decimal::Decimal;

use crate::base::limits::{DOCUMENT_ITEMS_MAX, DOUBTS_MAX};
use crate::domain::price_factors::UNREADABLE;
use crate::protocol::member::{Value, of_both};
use crate::protocol::paths::Field;

/// The name of the items that no path names.
pub(crate) const UNNAMED: &str = "*";

/// Elements of one name and the sum of their counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The name of the member that holds the array of these elements.
    pub of: Cow<'static, str>,
    /// The name of the elements.
    pub name: Vec<u8>,
    /// The sum of their counts.
    pub count: u64,
}

/// An object within a document, kept as a document of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The name of the member that holds it, or the array with it.
    pub of: Cow<'static, str>,
    /// Its members.
    pub document: Document,
}

/// What the reader found in one document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document {
    values: Vec<Value>,
    items: Vec<Item>,
    /// The records, without those that hold no member that the format needs.
    pub records: Vec<Record>,
    /// True if there were more records than the document keeps.
    pub has_more_records: bool,
    tells_tokens: bool,
    tells_words: bool,
    /// True if it holds something that bears on the price and that the reader could not read, or
    /// could not keep.
    pub(super) is_odd: bool,
    /// The fields of which another reader may see another value, each with values that it may see.
    unclear: Vec<(u8, Vec<u8>)>,
    text_bytes: u64,
    pub(super) input_characters: u64,
    pub(super) is_object: bool,
    pub(super) is_whole: bool,
    /// The type of the event that carried the document, if the framing names it.
    pub event_type: Vec<u8>,
}

impl Document {
    /// The member as a number of zero or more, which is rounded up; `None` if it is no such number.
    /// `12` and `12.0` are counts as they should be; `1.5` and `"12"` are read too, but make the
    /// document odd.
    pub fn count(&self, field: Field) -> Option<u64> {
        self.value(field).count()
    }

    /// Whether it holds a count, a quantity or a word that moves the price, and the reader could not
    /// read it, or read it only by leniency; or more of what it counts than it keeps.
    pub fn is_odd(&self) -> bool {
        self.is_odd
    }

    /// The member as a number of zero or more, which may be a string, or the number of its
    /// occurrences.
    pub fn quantity(&self, field: Field) -> Option<Decimal> {
        self.value(field).quantity()
    }

    /// Whether it may tell tokens. Most documents of a stream tell none.
    pub(crate) fn tells_tokens(&self) -> bool {
        self.tells_tokens
    }

    /// Whether it may tell words that move the price.
    pub(crate) fn tells_words(&self) -> bool {
        self.tells_words
    }

    /// Whether it may tell something that is billed beside tokens, or a cost.
    pub(crate) fn tells_units(&self) -> bool {
        self.values.len() > Field::FIRST_BESIDE_TOKENS
    }

    /// All elements with a name, by the name of the member that holds their array.
    pub(crate) fn items(&self) -> impl Iterator<Item = (&str, &[u8], u64)> {
        self.items.iter().map(|item| (&*item.of, item.name.as_slice(), item.count))
    }

    /// The names of the elements of `array`, each with the sum of their counts.
    pub(crate) fn items_of(&self, array: &str) -> impl Iterator<Item = (&[u8], u64)> {
        let items = self.items.iter().filter(move |item| item.of == array);
        items.map(|item| (item.name.as_slice(), item.count))
    }

    /// The member as a string, unless it is empty. Replaces invalid UTF-8.
    pub fn text(&self, field: Field) -> Option<Cow<'_, str>> {
        match self.value(field) {
            Value::Text(text) if !text.is_empty() => Some(String::from_utf8_lossy(text)),
            _ => None,
        }
    }

    /// The member as a word that moves the price, unless it is blank. What is there and is no string
    /// is [`UNREADABLE`], which is no word for the list price.
    pub fn word(&self, field: Field) -> Option<Cow<'_, str>> {
        match self.value(field) {
            Value::Absent | Value::Null => None,
            Value::Text(text) => {
                Some(String::from_utf8_lossy(text)).filter(|text| !text.trim().is_empty())
            }
            Value::Bare(_) | Value::Container | Value::Count(_) => Some(UNREADABLE.into()),
        }
    }

    /// The member as it stands in the text, if it is a string or a number, and whether it is a
    /// string.
    pub fn raw(&self, field: Field) -> Option<(bool, &[u8])> {
        match self.value(field) {
            Value::Text(text) => Some((true, text)),
            Value::Bare(text) => Some((false, text)),
            Value::Absent | Value::Null | Value::Container | Value::Count(_) => None,
        }
    }

    /// Whether the member is this string.
    pub fn is(&self, field: Field, text: &str) -> bool {
        matches!(self.value(field), Value::Text(found) if found == text.as_bytes())
    }

    /// Whether the member is `true`.
    pub(crate) fn is_true(&self, field: Field) -> bool {
        matches!(self.value(field), Value::Bare(text) if text == b"true")
    }

    /// Whether the member is `false`.
    pub(crate) fn is_false(&self, field: Field) -> bool {
        matches!(self.value(field), Value::Bare(text) if text == b"false")
    }

    /// Whether the document has the member, and its value is not `null`.
    pub fn has(&self, field: Field) -> bool {
        !matches!(self.value(field), Value::Absent | Value::Null)
    }

    /// Whether it tells why the generation has ended. Some servers send an empty reason with each
    /// chunk before the end.
    pub(crate) fn tells_the_end(&self) -> bool {
        self.has(Field::Finish) && !self.is(Field::Finish, "")
    }

    /// The sum of the counts of the elements of `array` that have one of these names, in any case.
    /// `None` if there is no such element.
    pub fn sum(&self, array: &str, names: &[&str]) -> Option<u64> {
        let is_meant = |(name, _): &(&[u8], u64)| {
            names.iter().any(|meant| meant.as_bytes().eq_ignore_ascii_case(name))
        };
        let meant = self.items_of(array).filter(is_meant);
        meant.map(|(_, count)| count).reduce(u64::saturating_add)
    }

    /// Whether the document is an object.
    pub fn is_object(&self) -> bool {
        self.is_object
    }

    /// Whether the document has begun as an object and not ended.
    pub(crate) fn is_cut(&self) -> bool {
        self.is_object && !self.is_whole
    }

    /// The length of the generated text, in bytes.
    pub fn text_bytes(&self) -> u64 {
        self.text_bytes
    }

    /// The length of the text to work on, in Unicode scalar values.
    pub(crate) fn input_characters(&self) -> u64 {
        self.input_characters
    }

    fn value(&self, field: Field) -> &Value {
        self.values.get(field.number()).unwrap_or(&Value::Absent)
    }

    /// Sets a member that does not come out of JSON.
    pub(crate) fn tell(&mut self, field: Field, is_string: bool, text: &[u8]) {
        let text = text.to_vec();
        let value = if is_string { Value::Text(text) } else { Value::Bare(text) };
        self.put(field, value);
    }

    /// Takes a member away.
    pub(crate) fn forget(&mut self, field: Field) {
        self.put(field, Value::Absent);
    }

    /// The fields that were told twice with different values or, where the tree is strict, under a
    /// name that other readers may take for theirs: it is not certain which one a server takes.
    pub(crate) fn unclear(&self) -> impl Iterator<Item = Field> {
        let fields = self.unclear.iter().map(|(field, _)| usize::from(*field));
        fields.filter_map(|field| Field::ALL.get(field).copied())
    }

    /// Some of the texts that a server may take for this member, if that is not certain.
    pub(crate) fn texts_in_doubt(&self, field: Field) -> Vec<String> {
        let is_it = |number: u8| Field::ALL.get(usize::from(number)) == Some(&field);
        let doubts = self.unclear.iter().filter(|(number, _)| is_it(*number));
        let texts: Vec<String> =
            doubts.map(|(_, text)| String::from_utf8_lossy(text).into_owned()).collect();
        let told = self.text(field).filter(|_| !texts.is_empty()).map(Cow::into_owned);
        texts.into_iter().chain(told).filter(|text| !text.is_empty()).collect()
    }

    /// Keeps what was told of a member before, if something else is told now.
    pub(super) fn doubt_another(&mut self, field: u8, value: &Value) {
        let told = self.values.get(usize::from(field)).filter(|told| *told != value);
        if let Some(Value::Bare(told) | Value::Text(told)) = told {
            self.doubt(field, &told.clone());
        }
    }

    pub(super) fn doubt(&mut self, field: u8, text: &[u8]) {
        let doubts = self.unclear.iter().filter(|(number, _)| *number == field).count();
        if doubts < DOUBTS_MAX {
            self.unclear.push((field, text.to_vec()));
        }
    }

    fn note(&mut self, field: Field) {
        self.tells_tokens |= field.is_tokens() || field.adds_up();
        self.tells_words |= field.is_word();
    }

    fn put(&mut self, field: Field, value: Value) {
        self.note(field);
        let at = field.number();
        if self.values.len() <= at {
            self.values.resize(at.saturating_add(1), Value::Absent);
        }
        if let Some(place) = self.values.get_mut(at) {
            *place = value;
        }
    }

    /// Sets a member. Returns whether an earlier one with the same meaning counts other tokens.
    pub(super) fn set(&mut self, field: u8, value: Value) -> bool {
        let at = usize::from(field);
        if self.values.len() <= at {
            self.values.resize(at.saturating_add(1), Value::Absent);
        }
        let (Some(meaning), Some(place)) = (Field::ALL.get(at).copied(), self.values.get_mut(at))
        else {
            return false;
        };
        let tokens = |value: &Value| value.count().filter(|count| *count > 0);
        let is_another = meaning.is_tokens()
            && !meaning.adds_up()
            && tokens(place).is_some_and(|earlier| tokens(&value).is_some_and(|it| it != earlier));
        *place = of_both(meaning, core::mem::take(place), value);
        self.note(meaning);
        is_another
    }

    /// Counts more of a kind that is counted.
    pub(super) fn tally(&mut self, field: u8, more: u64) {
        let at = usize::from(field);
        let before = match self.values.get(at) {
            Some(Value::Count(count)) => *count,
            _ => 0,
        };
        self.set(field, Value::Count(before.saturating_add(more)));
    }

    /// Adds to the items of one name.
    pub(super) fn put_item(&mut self, of: Cow<'static, str>, name: Vec<u8>, count: u64) {
        let items = &mut self.items;
        let same = items.iter_mut().find(|item| item.of == of && item.name == name);
        if let Some(item) = same {
            item.count = item.count.saturating_add(count);
        } else if items.len() < DOCUMENT_ITEMS_MAX {
            items.push(Item { of, name, count });
        } else {
            self.is_odd = true;
        }
    }

    /// Whether it holds no value.
    pub(super) fn is_blank(&self) -> bool {
        self.values.iter().all(|value| matches!(value, Value::Absent | Value::Null))
    }

    pub(super) fn add_text(&mut self, bytes: u64) {
        self.text_bytes = self.text_bytes.saturating_add(bytes);
    }

    pub(super) fn clear(&mut self) {
        self.values.clear();
        self.items.clear();
        self.records.clear();
        self.has_more_records = false;
        self.tells_tokens = false;
        self.tells_words = false;
        self.is_odd = false;
        self.unclear.clear();
        self.text_bytes = 0;
        self.input_characters = 0;
        self.is_object = false;
        self.is_whole = false;
    }
}
