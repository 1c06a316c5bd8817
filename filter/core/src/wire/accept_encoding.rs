//! The codings that a metered request may offer to the server (RFC 9110, section 12.5.3), so that
//! the filter can read the response.

use serde::Deserialize;

/// What the filter does about codings of responses that it cannot read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, serde::Serialize))]
#[serde(rename_all = "snake_case")]
pub enum ResponseEncoding {
    /// The filter decodes gzip and deflate, and removes other codings from the request's offer.
    #[default]
    Decode,
    /// The filter removes every coding except `identity` from the offer.
    Narrow,
    /// The filter leaves the offer as it is.
    Leave,
}

/// The `accept-encoding` to send instead of `offered`, or `None` if the offer may stay as it is.
pub fn narrowed(offered: Option<&[u8]>, rule: ResponseEncoding) -> Option<String> {
    let offered = core::str::from_utf8(offered?).ok().unwrap_or("?");
    let is_read = |item: &[u8]| matches!(item.trim_ascii(), b"gzip" | b"deflate" | b"identity");
    if rule == ResponseEncoding::Leave
        || (rule == ResponseEncoding::Decode
            && offered.as_bytes().split(|b| *b == b',').all(is_read))
    {
        return None;
    }
    let is_kept = |item: &&str| {
        let coding = item.split(';').next().unwrap_or_default().trim();
        let is = |name: &str| coding.eq_ignore_ascii_case(name);
        match rule {
            ResponseEncoding::Decode => {
                is("gzip") || is("x-gzip") || is("deflate") || is("identity") || coding.is_empty()
            }
            ResponseEncoding::Narrow => is("identity") || coding.is_empty(),
            ResponseEncoding::Leave => true,
        }
    };
    let items: Vec<&str> = offered.split(',').map(str::trim).collect();
    if items.iter().all(is_kept) {
        return None;
    }
    let kept: Vec<&str> = items.into_iter().filter(is_kept).collect();
    Some(if kept.is_empty() { "identity".to_owned() } else { kept.join(", ") })
}
