"""Serves an app until standard input ends."""

import asyncio
import json
import sys
from collections.abc import Mapping

import uvicorn


async def serve(app: object, executed: Mapping[str, object]) -> None:
    """Prints `ready {"port": ...}` when the app serves, and `executed {...}` when it has ended."""
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
