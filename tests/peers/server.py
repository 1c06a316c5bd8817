"""An MCP server of the official SDK that counts what it executed.

Prints `ready {"port": ...}` when it serves. Ends when its standard input does, and prints `executed {...}`: the
executions by tool, whatever became of them.
"""

import argparse
import asyncio
import json
import sys
from collections import Counter

import uvicorn
from mcp.server.mcpserver import Context, MCPServer

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


async def serve(transport: str) -> None:
    app = tools.sse_app() if transport == "sse" else tools.streamable_http_app()
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical")
    server = uvicorn.Server(config)
    listening = config.bind_socket()
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    print("ready", json.dumps({"port": listening.getsockname()[1]}), flush=True)
    reading = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    await asyncio.wait([serving, reading], return_when=asyncio.FIRST_COMPLETED)
    # Open streams are not waited for.
    server.should_exit = server.force_exit = True
    await serving
    print("executed", json.dumps(executed), flush=True)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--transport", choices=["streamable-http", "sse"], default="streamable-http")
    asyncio.run(serve(arguments.parse_args().transport))
