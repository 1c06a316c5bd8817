//! Plain data as bytes for shared data, in postcard's form (wire format 1).

use postcard::ser_flavors::Flavor;
use serde::Serialize;

/// Encodes a value. Serialising plain data into memory cannot fail.
pub(crate) fn encoded<T: Serialize>(value: &T) -> Vec<u8> {
    encoded_behind(Vec::new(), value)
}

/// Encodes a value behind what is there.
pub(crate) fn encoded_behind<T: Serialize>(bytes: Vec<u8>, value: &T) -> Vec<u8> {
    postcard::serialize_with_flavor(value, Bytes(bytes)).unwrap_or_default()
}

/// One form for all that is encoded, so that the module has each type's code once, and texts are
/// copied whole: the library's own takes them byte by byte if bytes are there before.
struct Bytes(Vec<u8>);

impl Flavor for Bytes {
    type Output = Vec<u8>;

    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(data);
        Ok(())
    }

    fn try_push(&mut self, data: u8) -> postcard::Result<()> {
        self.0.push(data);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<Vec<u8>> {
        Ok(self.0)
    }
}
