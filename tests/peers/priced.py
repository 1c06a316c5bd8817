"""An MCP server of the official SDK whose tools record for whom they ran.

Prints `ready {"port": ...}` when it serves. Ends when its standard input does, and prints `executed {...}`: the tools
that ran, in their order, by the `x-customer-id` of the request.
"""

import asyncio
import json
import sys
from collections import defaultdict

import uvicorn
from mcp.server.mcpserver import Context, MCPServer

executed: defaultdict[str, list[str]] = defaultdict(list)
tools = MCPServer("priced", log_level="CRITICAL")


def record(tool: str, context: Context) -> str:
    executed[context.request_context.request.headers["x-customer-id"]].append(tool)
    return tool


@tools.tool()
def analyze_x(context: Context) -> str:
    """Costs 0.10."""
    return record("analyze_x", context)


@tools.tool()
def lookup_x(context: Context) -> str:
    """Costs 0.002."""
    return record("lookup_x", context)


@tools.tool()
def echo(context: Context) -> str:
    """Costs 0.001."""
    return record("echo", context)


async def serve() -> None:
    app = tools.streamable_http_app(json_response=True, stateless_http=True)
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical")
    server = uvicorn.Server(config)
    listening = config.bind_socket()
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    print("ready", json.dumps({"port": listening.getsockname()[1]}), flush=True)
    reading = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    await asyncio.wait([serving, reading], return_when=asyncio.FIRST_COMPLETED)
    server.should_exit = server.force_exit = True
    await serving
    print("executed", json.dumps(executed), flush=True)


asyncio.run(serve())
