"""An MCP server of the official SDK that counts what it executed.

Prints `ready {"port": ...}` when it serves. Ends when its standard input does, and prints `executed {...}`: the
executions by tool, whatever became of them.
"""

import argparse
import asyncio
from collections import Counter

from mcp.server.mcpserver import Context, MCPServer

from serving import serve

executed: Counter[str] = Counter()
tools = MCPServer("peer", log_level="CRITICAL")


@tools.tool()
def echo(message: str) -> str:
    """Says what it was told."""
    executed["echo"] += 1
    return message


@tools.tool()
async def slow(steps: int, step_ms: int, context: Context) -> str:
    """Takes its time, and tells how far it is."""
    executed["slow"] += 1
    for step in range(steps):
        await asyncio.sleep(step_ms / 1000)
        await context.report_progress(step + 1, steps)
    return f"{steps} steps"


@tools.tool()
def fail(reason: str) -> str:
    """Fails, and says so in its result."""
    executed["fail"] += 1
    raise ValueError(reason)


@tools.tool()
def count() -> dict[str, int]:
    """Tells what was executed so far."""
    executed["count"] += 1
    return dict(executed)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--transport", choices=["streamable-http", "sse"], default="streamable-http")
    is_sse = arguments.parse_args().transport == "sse"
    asyncio.run(serve(tools.sse_app() if is_sse else tools.streamable_http_app(), executed))
