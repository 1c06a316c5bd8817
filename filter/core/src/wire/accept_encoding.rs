//! Which codings a metered request may offer the server (RFC 9110, section 12.5.3), so that the response can be read.

use serde::Deserialize;

/// What is done about responses in codings that cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResponseEncoding {
    /// gzip and deflate are decoded; other codings are taken out of the request's offer.
    #[default]
    Decode,
    /// Every coding is taken out of the offer.
    Narrow,
    /// The offer goes on as it is.
    Leave,
}

/// The `accept-encoding` to send instead of `offered`, or `None` if it may go on as it is.
pub fn narrowed(offered: Option<&[u8]>, rule: ResponseEncoding) -> Option<String> {
    let offered = core::str::from_utf8(offered?).ok().unwrap_or("?");
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
