use agent_meter_core::config::Config;
use crate::support::test;
#[test]
fn tmp() {
    let r = Config::from_bytes(br#"{"collector": {"authority": "agent-meter-collector", "cluster": "agent_meter_collector"}, "products": [{"id": "mcp", "identity": {"agent": {"trusted_header": "x-agent-id"}, "customer": {"trusted_header": "x-customer-id"}}, "match": {"path_prefix": "/"}, "pricing": {"currency": "USD", "default": {"cost_tier": "standard", "price": "0"}}, "type": "MCP_SERVER"}]}"#);
    println!("{r:?}");
    r.unwrap();
}
