"""An MCP server of the official SDK whose tools record for whom they ran.

Prints `ready {"port": ...}` when it serves. Ends when its standard input does, and prints `executed {...}`: the tools
that ran, in their order, by the `x-customer-id` of the request.
"""

import asyncio
from collections import defaultdict

from mcp.server.mcpserver import Context, MCPServer

from serving import serve

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


app = tools.streamable_http_app(json_response=True, stateless_http=True)
asyncio.run(serve(app, executed))
