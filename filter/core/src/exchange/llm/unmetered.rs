//! What a request to a product with `llm` is that starts no exchange.

use crate::admission::head::RequestHead;
use crate::config::product::Product;
use crate::config::{LlmRules, OnUnseen};
use crate::exchange::kind::Unmetered;
use crate::protocol::llm::provider::is_free;
use crate::protocol::path_template::template;

/// What a request is that starts no exchange. A method of gRPC is no path that says what is free.
pub(super) fn unmetered(product: &Product, rules: &LlmRules, head: &RequestHead<'_>) -> Unmetered {
    let is_tunnel = head.is_upgrade || head.methods().any(|method| method == "CONNECT");
    let is_post = head.methods().any(|method| method == "POST");
    let host = core::str::from_utf8(head.authority).unwrap_or_default();
    let is_free =
        !head.is_grpc && head.target.paths().all(|path| is_free(rules.asked(), host, path));
    if !is_tunnel && (!is_post || is_free) {
        return Unmetered::Free;
    }
    Unmetered::Unseen {
        place: format!("product={} path={}", product.id, template(head.target.path())),
        is_refused: rules.unseen == OnUnseen::Reject,
    }
}
