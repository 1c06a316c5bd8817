//! The headers of a request or response.

use core::fmt::Debug;

use crate::base::hash::is_same;

/// The headers of a request or response, names in lower case; values may be any bytes.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a>(pub &'a dyn HeaderList);

impl<'a> Headers<'a> {
    /// The value of the first header with this name.
    pub fn get(self, name: &str) -> Option<&'a [u8]> {
        self.0.find(name, 0).map(|(_, value)| value)
    }

    /// The values of all headers with this name, in their order.
    pub(crate) fn all(self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let mut from = 0;
        core::iter::from_fn(move || {
            let (at, value) = self.0.find(name, from)?;
            from = at.saturating_add(1);
            Some(value)
        })
    }
}

/// A list of headers, however it is kept.
pub trait HeaderList: Debug {
    /// The first header with this name, beginning at the place `from`: its place and its value.
    fn find(&self, name: &str, from: usize) -> Option<(usize, &[u8])>;
}

fn find<'a>(list: &'a [(String, Vec<u8>)], name: &str, from: usize) -> Option<(usize, &'a [u8])> {
    let mut rest = list.iter().enumerate().skip(from);
    let (at, (_, value)) = rest.find(|(_, (key, _))| key == name)?;
    Some((at, value))
}

impl HeaderList for Vec<(String, Vec<u8>)> {
    fn find(&self, name: &str, from: usize) -> Option<(usize, &[u8])> {
        find(self, name, from)
    }
}

impl HeaderList for &[(String, Vec<u8>)] {
    fn find(&self, name: &str, from: usize) -> Option<(usize, &[u8])> {
        find(self, name, from)
    }
}

impl<const COUNT: usize> HeaderList for [(String, Vec<u8>); COUNT] {
    fn find(&self, name: &str, from: usize) -> Option<(usize, &[u8])> {
        find(self, name, from)
    }
}

/// Headers as the proxy passes them: their number, the sizes of each name and value, then names and
/// values, each with a NUL behind it; numbers are of four bytes, the lowest first.
///
/// The filter asks for some sixty headers that most requests do not have, so a name is compared only
/// if its size, its first and its last byte fit.
#[derive(Debug, Default)]
pub struct HeaderBytes {
    bytes: Vec<u8>,
    fields: Vec<Field>,
    /// A bit for each print, so that most of what is not there is not looked for.
    prints: u64,
}

#[derive(Clone, Copy, Debug)]
struct Field {
    print: u32,
    name: usize,
    value: usize,
    end: usize,
}

impl HeaderBytes {
    /// Reads the list as far as it is well-formed.
    pub fn new(bytes: Vec<u8>) -> Self {
        let mut list = Self::default();
        let count = number(&bytes, 0).unwrap_or_default();
        // Each header has at least its two sizes.
        let count = count.min(bytes.len() / 8);
        list.fields.reserve_exact(count);
        let mut name = count.saturating_mul(8).saturating_add(4);
        let mut sizes_at = 4_usize;
        for _ in 0..count {
            let sizes = (number(&bytes, sizes_at), number(&bytes, sizes_at.saturating_add(4)));
            let (Some(name_size), Some(value_size)) = sizes else { break };
            let value = name.saturating_add(name_size).saturating_add(1);
            let end = value.saturating_add(value_size);
            if end >= bytes.len() {
                break;
            }
            let text = bytes.get(name..value.saturating_sub(1)).unwrap_or_default();
            let print = print(text);
            list.prints |= bit(print);
            list.fields.push(Field { print, name, value, end });
            name = end.saturating_add(1);
            sizes_at = sizes_at.saturating_add(8);
        }
        list.bytes = bytes;
        list
    }
}

impl HeaderList for HeaderBytes {
    fn find(&self, name: &str, from: usize) -> Option<(usize, &[u8])> {
        let print = print(name.as_bytes());
        if self.prints & bit(print) == 0 {
            return None;
        }
        let mut rest = self.fields.iter().enumerate().skip(from);
        let (at, field) = rest.find(|(_, field)| {
            let text = self.bytes.get(field.name..field.value.saturating_sub(1));
            field.print == print && text.is_some_and(|text| is_same(text, name.as_bytes()))
        })?;
        Some((at, self.bytes.get(field.value..field.end)?))
    }
}

fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let number = bytes.get(at..)?.first_chunk()?;
    usize::try_from(u32::from_le_bytes(*number)).ok()
}

/// What is compared before a name is.
fn print(name: &[u8]) -> u32 {
    match name {
        [first, .., last] => {
            let size = u8::try_from(name.len()).unwrap_or(u8::MAX);
            u32::from_le_bytes([*last, *first, size, 0])
        }
        [only] => u32::from(*only),
        [] => 0,
    }
}

fn bit(print: u32) -> u64 {
    let [last, first, size, _] = print.to_le_bytes();
    1_u64.wrapping_shl(u32::from(last ^ first.wrapping_mul(5) ^ size.wrapping_mul(3)))
}

#[cfg(test)]
mod tests {
    use super::{HeaderBytes, Headers};

    fn bytes(headers: &[(&str, &[u8])]) -> Vec<u8> {
        let number = |number: usize| u32::try_from(number).unwrap().to_le_bytes();
        let mut bytes = number(headers.len()).to_vec();
        for (name, value) in headers {
            bytes.extend([number(name.len()), number(value.len())].concat());
        }
        for (name, value) in headers {
            bytes.extend([name.as_bytes(), b"\0", value, b"\0"].concat());
        }
        bytes
    }

    const HEAD: &[(&str, &[u8])] = &[
        (":path", b"/mcp"),
        ("x", b""),
        ("accept", b"a/b"),
        ("x-b", b"\0\xff"),
        ("accept", b"c/d"),
        ("", b"no name"),
        ("x-a", b"last"),
    ];

    #[test]
    fn headers_are_found_by_their_names_in_their_order() {
        let list = HeaderBytes::new(bytes(HEAD));
        let headers = Headers(&list);
        for (name, value) in HEAD.iter().filter(|(name, _)| *name != "accept") {
            assert_eq!(headers.get(name), Some(*value), "{name}");
        }
        assert_eq!(headers.all("accept").collect::<Vec<_>>(), [b"a/b", b"c/d"]);
        for name in ["accepT", "x-c", "y", ":paths", "accex t"] {
            assert_eq!(headers.get(name), None, "{name}");
        }
    }

    #[test]
    fn what_is_cut_or_wrong_is_read_as_far_as_it_is_right() {
        let whole = bytes(HEAD);
        for cut in 0..whole.len() {
            let list = HeaderBytes::new(whole[..cut].to_vec());
            let found = HEAD.iter().filter(|(name, _)| Headers(&list).get(name).is_some());
            assert!(found.count() < HEAD.len(), "{cut}");
        }
        for at in 0..60 {
            let mut wrong = whole.clone();
            wrong[at] = 0xff;
            let list = HeaderBytes::new(wrong);
            let found = HEAD.iter().filter(|(name, _)| Headers(&list).get(name).is_some());
            assert!(found.count() <= HEAD.len());
        }
    }
}
