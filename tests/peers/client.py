"""MCP clients of the official SDK, or of FastMCP: each plays one session, all at the same time, and tells how its calls
ended.

Prints a line for each: `{"protocol": ..., "outcomes": [...]}`. An outcome is SUCCESS, ERROR (a result with `isError`),
GAVE_UP (the client's own time limit), or the code of a JSON-RPC error.
"""

import argparse
import json
from contextlib import AsyncExitStack

import anyio
import httpx2
from mcp import Client, MCPError
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client


async def ignore(*_progress: object) -> None:
    """Asks for progress, and does nothing with it."""


async def open_client(arguments: argparse.Namespace, agent: int, stack: AsyncExitStack) -> "Client | fastmcp.Client":
    headers = {"x-customer-id": "acme", "x-agent-id": f"agent-{agent}"}
    if arguments.sdk == "fastmcp":
        # Imported only if it is used, because that takes a second.
        import fastmcp
        from fastmcp.client import transports

        sse, http = transports.SSETransport, transports.StreamableHttpTransport
        transport = sse if arguments.transport == "sse" else http
        client = fastmcp.Client(transport(arguments.url, headers=headers), mode=arguments.mode)
    elif arguments.transport == "sse":
        client = Client(sse_client(arguments.url, headers=headers), mode=arguments.mode)
    else:
        http = httpx2.AsyncClient(headers=headers, timeout=60, follow_redirects=True)
        http = await stack.enter_async_context(http)
        client = Client(streamable_http_client(arguments.url, http_client=http), mode=arguments.mode)
    return await stack.enter_async_context(client)


async def call(client: "Client | fastmcp.Client", plan: dict) -> str:
    """Makes one call."""
    limit = plan.get("limit_ms")
    try:
        with anyio.fail_after(limit and limit / 1000):
            if isinstance(client, Client):
                result = await client.call_tool(plan["tool"], plan["arguments"], progress_callback=ignore)
            else:
                result = await client.call_tool_mcp(plan["tool"], plan["arguments"], progress_handler=ignore)
    except TimeoutError:
        return "GAVE_UP"
    except MCPError as error:
        return str(error.error.code)
    return "ERROR" if result.is_error else "SUCCESS"


async def play(arguments: argparse.Namespace, agent: int) -> None:
    calls = json.loads(arguments.calls)
    outcomes: list[str] = [""] * len(calls)
    async with AsyncExitStack() as stack:
        client = await open_client(arguments, agent, stack)
        protocol = client.protocol_version
        free = anyio.CapacityLimiter(arguments.parallel)

        async def play_one(at: int) -> None:
            async with free:
                outcomes[at] = await call(client, calls[at])

        async with anyio.create_task_group() as group:
            for at in range(len(calls)):
                group.start_soon(play_one, at)
    print(json.dumps({"protocol": protocol, "outcomes": outcomes}), flush=True)


async def play_all(arguments: argparse.Namespace) -> None:
    async with anyio.create_task_group() as group:
        for agent in range(arguments.agents):
            group.start_soon(play, arguments, agent)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--sdk", choices=["official", "fastmcp"], default="official")
    parser.add_argument("--transport", choices=["streamable-http", "sse"], default="streamable-http")
    parser.add_argument("--mode", default="auto", help="auto, legacy, or a revision such as 2026-07-28")
    parser.add_argument("--agents", type=int, default=1)
    parser.add_argument("--parallel", type=int, default=1)
    parser.add_argument("--calls", required=True, help='[{"tool": ..., "arguments": {...}, "limit_ms": ...}]')
    anyio.run(play_all, parser.parse_args())
