"""Answers the POSTs of HTTP+SSE in other manners than the official Python SDK does, which answers all with 202.

The event stream stays the SDK's own: the answers to calls come there, as ever.
"""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Message, Receive, Scope, Send


@dataclass(frozen=True)
class Manner:
    """What a POST is answered that the SDK accepted."""

    status: int = 200
    body: bytes = b""
    content_type: bytes = b""
    # True to answer a request only after its answer was written to the event stream.
    late: bool = False


MANNERS = {
    "empty": Manner(),
    # The servlet of the official Java SDK does this.
    "late": Manner(late=True),
    "no-content": Manner(status=204),
    "text": Manner(body=b"Accepted", content_type=b"text/plain"),
    "json": Manner(body=b'{"status":"ok"}', content_type=b"application/json"),
}


def data_of(events: bytes) -> Iterator[bytes]:
    """The data of events, which the SDK writes whole and on one line each."""
    for line in events.splitlines():
        if line.startswith(b"data: "):
            yield line.removeprefix(b"data: ")


class Posts:
    """Puts a manner around the SDK's app."""

    def __init__(self, app: ASGIApp, manner: str) -> None:
        self._app = app
        self._manner = MANNERS[manner]
        # The session and the id of each answer that was written to an event stream.
        self._written: set[tuple[str, object]] = set()
        self._more = asyncio.Condition()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["method"] == "POST":
            await self._post(scope, receive, send)
        else:
            await self._app(scope, receive, self._noting(send))

    async def _post(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets the SDK take a message, and answers in the manner."""
        message = bytearray()
        answer: list[Message] = []

        async def read() -> Message:
            part = await receive()
            message.extend(part.get("body", b""))
            return part

        async def keep(part: Message) -> None:
            answer.append(part)
            if part["type"] == "http.response.body" and not self._manner.late:
                await self._answer(*answer, send)

        await self._app(scope, read, keep)
        if self._manner.late:
            await self._until_written(scope, json.loads(message))
            await self._answer(*answer, send)

    async def _answer(self, start: Message, end: Message, send: Send) -> None:
        if start["status"] == 202:
            manner = self._manner
            headers = [(b"content-type", manner.content_type)] if manner.content_type else []
            if manner.status != 204:
                headers.append((b"content-length", str(len(manner.body)).encode()))
            start = {"type": start["type"], "status": manner.status, "headers": headers}
            end = {"type": end["type"], "body": manner.body}
        await send(start)
        await send(end)

    async def _until_written(self, scope: Scope, message: dict) -> None:
        """Waits for the answer to a request; a notification has none."""
        if "id" not in message or "method" not in message:
            return
        (session,) = parse_qs(scope["query_string"].decode())["session_id"]
        async with self._more:
            await self._more.wait_for(lambda: (session, message["id"]) in self._written)

    def _noting(self, send: Send) -> Send:
        """Passes an event stream on, and notes the answers that were written to it."""
        session = ""

        async def note(part: Message) -> None:
            nonlocal session
            await send(part)
            for data in data_of(part.get("body", b"")):
                if not data.startswith(b"{"):
                    session = data.decode().split("session_id=")[-1]
                    continue
                message = json.loads(data)
                if "id" in message and "method" not in message:
                    async with self._more:
                        self._written.add((session, message["id"]))
                        self._more.notify_all()

        return note
