//! The headers of a request or response.

/// The headers of a request or response, names in lower case; values may be any bytes.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a>(pub &'a [(String, Vec<u8>)]);

impl<'a> Headers<'a> {
    /// The value of the first header with this name.
    pub fn get(self, name: &str) -> Option<&'a [u8]> {
        self.all(name).next()
    }

    /// The values of all headers with this name, in their order.
    pub(crate) fn all(self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let named = self.0.iter().filter(move |(key, _)| key == name);
        named.map(|(_, value)| value.as_slice())
    }
}
