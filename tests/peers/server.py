"""An MCP server of the official SDK, or of FastMCP, that counts what it executed.

Prints `ready {"port": ...}` when it serves. Ends when its standard input does, and prints `executed {...}`: the
executions by tool, whatever became of them. As the child of a gateway (`stdio`) it cannot print, and appends the name
of each tool that it executed to a file.
"""

import argparse
import asyncio
import logging
from collections import Counter
from pathlib import Path

from mcp.server.mcpserver import Context, MCPServer
from starlette.types import ASGIApp

from posts import MANNERS, Posts
from serving import serve

executed: Counter[str] = Counter()


def add_tools(server: "MCPServer | fastmcp.FastMCP", context_type: type, record: Path | None) -> None:
    """Gives the server its tools."""

    def count_up(tool: str) -> None:
        executed[tool] += 1
        if record:
            with record.open("a") as file:
                file.write(f"{tool}\n")

    @server.tool()
    def echo(message: str) -> str:
        """Says what it was told."""
        count_up("echo")
        return message

    @server.tool()
    async def slow(steps: int, step_ms: int, context: context_type) -> str:
        """Takes its time, and tells how far it is."""
        count_up("slow")
        for step in range(steps):
            await asyncio.sleep(step_ms / 1000)
            await context.report_progress(step + 1, steps)
        return f"{steps} steps"

    @server.tool()
    def fail(reason: str) -> str:
        """Fails, and says so in its result."""
        count_up("fail")
        raise ValueError(reason)

    @server.tool()
    def count() -> dict[str, int]:
        """Tells what was executed so far."""
        count_up("count")
        return dict(executed)


def app_of_fastmcp(server: "fastmcp.FastMCP", arguments: argparse.Namespace) -> ASGIApp:
    """Serves `/mcp` or `/mcp/`, and redirects the other to it."""
    return server.http_app(
        path=arguments.path,
        transport=arguments.transport,
        json_response=arguments.json,
        stateless_http=arguments.stateless,
    )


def app_of_official(server: MCPServer, arguments: argparse.Namespace) -> ASGIApp:
    if arguments.transport == "sse":
        app = server.sse_app()
        return Posts(app, arguments.posts) if arguments.posts else app
    return server.streamable_http_app(json_response=arguments.json, stateless_http=arguments.stateless)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sdk", choices=["official", "fastmcp"], default="official")
    parser.add_argument("--transport", choices=["streamable-http", "sse", "stdio"], default="streamable-http")
    parser.add_argument("--path", help="where FastMCP serves")
    parser.add_argument("--json", action="store_true", help="answers in JSON instead of events")
    parser.add_argument("--stateless", action="store_true")
    parser.add_argument("--posts", choices=list(MANNERS), help="how the official SDK's `sse` answers each POST")
    parser.add_argument("--record", type=Path, help="the file to append the executions to")
    return parser.parse_args()


if __name__ == "__main__":
    arguments = parse()
    if arguments.sdk == "fastmcp":
        # Imported only if it is used, because that takes a second.
        import fastmcp

        logging.getLogger("fastmcp").setLevel(logging.CRITICAL)
        server = fastmcp.FastMCP("peer")
        add_tools(server, fastmcp.Context, arguments.record)
    else:
        server = MCPServer("peer", log_level="CRITICAL")
        add_tools(server, Context, arguments.record)
    if arguments.transport == "stdio":
        server.run(transport="stdio")
    else:
        app = app_of_fastmcp if arguments.sdk == "fastmcp" else app_of_official
        asyncio.run(serve(app(server, arguments), executed))
