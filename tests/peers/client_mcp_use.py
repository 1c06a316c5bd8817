"""A client of mcp-use: plays one session and tells how each call ended.

CALLS and the line that it prints are those of client.py; it makes its calls at the same time.
"""

import argparse
import asyncio
import json

from mcp.shared.exceptions import McpError
from mcp_use.client import MCPClient
from mcp_use.client.session import MCPSession


async def call(session: MCPSession, plan: dict) -> str:
    """Makes one call."""
    try:
        result = await session.call_tool(plan["tool"], plan["arguments"])
    except McpError as error:
        return str(error.error.code)
    return "ERROR" if result.isError else "SUCCESS"


async def play(url: str, calls: list[dict]) -> None:
    headers = {"x-customer-id": "acme", "x-agent-id": "mcp-use"}
    client = MCPClient({"mcpServers": {"peer": {"url": url, "headers": headers}}})
    session = await client.create_session("peer")
    outcomes = await asyncio.gather(*(call(session, plan) for plan in calls))
    print(json.dumps({"outcomes": outcomes}), flush=True)
    await client.close_all_sessions()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--calls", required=True)
    arguments = parser.parse_args()
    asyncio.run(play(arguments.url, json.loads(arguments.calls)))
