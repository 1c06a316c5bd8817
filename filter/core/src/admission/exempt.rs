//! Recognises requests that carry no identity by design: OPTIONS, such as the preflights of
//! browsers, and the discovery of metadata below `/.well-known/`.
//!
//! They must be no way past the meter. So the method must be one that executes nothing, no header
//! may replace it or the path, nothing may follow the head, and every reading of the path must name
//! metadata.

use crate::config::Exempt;
use crate::config::product::Product;
use crate::wire::http::Headers;
use crate::wire::target::{OVERRIDES, REWRITES, Target};

/// Where clients look for metadata, by RFC 8615. RFC 8414 and RFC 9728 put the path of the resource
/// behind it.
const WELL_KNOWN: &str = "/.well-known/";

/// What clients look for below the path of a server too: OpenID Connect Discovery and A2A put it
/// behind that path, and so do servers that are mounted below a path.
const BELOW_A_PATH: [&str; 5] = [
    "/.well-known/openid-configuration",
    "/.well-known/oauth-authorization-server",
    "/.well-known/oauth-protected-resource",
    "/.well-known/agent-card.json",
    "/.well-known/agent.json",
];

/// Whether a request of a product passes without identity, and is not metered. `is_whole` is true
/// if the request ends with its head.
pub(super) fn is_exempt(
    product: &Product,
    target: &Target<'_>,
    headers: Headers<'_>,
    is_whole: bool,
) -> bool {
    if !is_whole {
        return false;
    }
    let exempt = &product.identity.exempt;
    let is_replaced = OVERRIDES.iter().chain(&REWRITES).any(|name| headers.get(name).is_some());
    if is_replaced {
        return false;
    }
    match headers.get(":method").unwrap_or_default() {
        b"OPTIONS" => exempt.contains(&Exempt::Options),
        b"GET" | b"HEAD" => {
            exempt.contains(&Exempt::WellKnown)
                && !product.matcher.names_below(WELL_KNOWN)
                && names_metadata(target)
        }
        _ => false,
    }
}

/// Whether a request whose path is no product's looks for metadata at the host of this product: of
/// what is at `/mcp`, that is at `/.well-known/oauth-protected-resource/mcp`.
pub(super) fn is_for_metadata(
    product: &Product,
    target: &Target<'_>,
    headers: Headers<'_>,
    is_whole: bool,
) -> bool {
    product.matcher.is_host(target.host())
        && names_metadata(target)
        && is_exempt(product, target, headers, is_whole)
}

/// Whether every server takes the path for that of metadata.
fn names_metadata(target: &Target<'_>) -> bool {
    let is_plain = target.paths().nth(1).is_none();
    target.paths().all(|path| path.starts_with(WELL_KNOWN))
        || (is_plain && BELOW_A_PATH.iter().any(|end| target.path().ends_with(end)))
}
