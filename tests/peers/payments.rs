//! The SDKs of x402 and MPP, as clients and as servers: what is asked for is not executed, and what
//! was paid on the wire is told and not charged again.

use std::collections::BTreeMap;

use agent_meter::wait;
use anyhow::ensure;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::books::{Books, text};
use crate::process::{Server, run_client};
use crate::{LIMIT, Metered, Plugin, at, tools};

/// A product at the path of its name, whose calls cost 0.001 each.
fn product(id: &str, kind: &str) -> Value {
    let customer = json!({ "trusted_header": "x-customer-id" });
    json!({
        "id": id, "type": kind, "match": { "path_prefix": format!("/{id}") },
        "identity": { "customer": customer }, "pricing": { "default": { "price": "0.001" } },
    })
}

/// Customer, what was called, its outcome, what is charged, and the protocol by which it was paid.
type Line = (String, String, String, String, String);

fn lines(books: &Books) -> BTreeMap<Line, u64> {
    let mut lines = BTreeMap::new();
    for call in books.tool_invocations().chain(books.of_type("api_call")) {
        let what = call.get("tool_name").or_else(|| call.get("route")).and_then(Value::as_str);
        let paid = call.get("payment").map(|payment| text(payment, "/protocol"));
        let line = (
            text(call, "/customer_id"),
            what.unwrap_or_default().to_owned(),
            text(call, "/execution_status"),
            text(call, "/price"),
            paid.unwrap_or_default(),
        );
        *lines.entry(line).or_default() += 1;
    }
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_paid_on_the_wire_is_told_and_not_charged_again() -> anyhow::Result<()> {
    let pins = tools::here("requirements-payments.txt");
    let python = tools::python_with("payments-venv", &pins).await?;
    let mut command = Command::new(&python);
    command.arg("-B").arg(tools::here("paid.py"));
    let (server, port) = Server::with_port(command).await?;
    let products = json!([product("mcp", "MCP_SERVER"), product("api", "STANDARD_API")]);
    let more = json!({ "products": products });
    let metered = Metered::start(at(port), Plugin { more, ..Plugin::default() }).await?;
    let mut client = Command::new(&python);
    client.arg("-B").arg(tools::here("paying.py")).arg(metered.url("")?);
    let seen = run_client(&mut client).await?;
    let of = |payer: &str, paid: bool, x402: u16| json!({ "payer": payer, "mcp": [paid, true], "http": [x402, 402, 200] });
    assert_eq!(seen, [of("acme", true, 200), of("pauper", false, 402)]);

    let line = |who: &str, what: &str, status: &str, price: &str, paid: &str| -> Line {
        (who.into(), what.into(), status.into(), price.into(), paid.into())
    };
    let expected = BTreeMap::from([
        (line("acme", "paid", "PAYMENT_REQUIRED", "0", ""), 1),
        (line("acme", "paid", "SUCCESS", "0", "x402"), 1),
        (line("acme", "free", "SUCCESS", "0.001", ""), 1),
        (line("acme", "/api", "PAYMENT_REQUIRED", "0", ""), 2),
        (line("acme", "/api", "SUCCESS", "0", "x402"), 1),
        (line("acme", "/api", "SUCCESS", "0", "mpp"), 1),
        // Who cannot pay is asked again.
        (line("pauper", "paid", "PAYMENT_REQUIRED", "0", ""), 2),
        (line("pauper", "free", "SUCCESS", "0.001", ""), 1),
        (line("pauper", "/api", "PAYMENT_REQUIRED", "0", ""), 3),
        (line("pauper", "/api", "SUCCESS", "0", "mpp"), 1),
    ]);
    let ledger = metered.stack().ledger()?;
    wait::until(LIMIT, "the calls are in the ledger", async || {
        let found = lines(&Books::read(&ledger).await?);
        ensure!(found == expected, "{found:?}");
        Ok(())
    })
    .await?;
    let books = metered.stop().await?;
    let payments: Vec<&Value> =
        books.tool_invocations().filter_map(|call| call.get("payment")).collect();
    assert_eq!(
        payments,
        [&json!({
            "protocol": "x402", "network": "x402:cash", "currency": "CASH",
            "amount_atomic": "250", "receipt": "cash-1",
        })]
    );
    let ran = json!({ "paid": 1, "free": 2, "/api/x402": 1, "/api/mpp": 2 });
    assert_eq!(server.stop().await?, ran);
    Ok(())
}
