"""Writes the first inputs of the fuzz target, from the fixtures and the wire cases.

    python3 seeds.py DIRECTORY

An input is a byte that chooses the configuration, then steps, separated by a line feed and a record separator. A step is
a letter, a digit for the stream, and its text:

    H headers of the request    Q a piece of its body, q the last    n bytes of it that are only counted
    R headers of the response   A a piece of its body, a the last    N bytes of it that are only counted
    U usage that Envoy read     E the end of the stream, X cut off
    T milliseconds pass         Y the collector answers: status, body    S Envoy stops
"""

import json
import sys
from pathlib import Path

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
CALL = '{"jsonrpc":"2.0","id":%s,"method":"%s","params":{"name":"%s","arguments":{"a":"b"}}}'
RESULT = '{"jsonrpc":"2.0","id":%s,"result":{"content":[],"isError":false}}'


def head(*headers: tuple[str, str]) -> str:
    return "\n".join(f"{name}: {value}" for name, value in headers)


def exchange(request: list[tuple[str, str]], body: bytes, response: list[tuple[str, str]], answer: bytes) -> bytes:
    cut, answer_cut = len(body) // 2, len(answer) // 3
    return b"\n\x1e".join([
        b"", b"H0" + head(*request).encode(), b"Q0" + body[:cut], b"q0" + body[cut:],
        b"R0" + head(*response).encode(), b"A0" + answer[:answer_cut], b"a0" + answer[answer_cut:], b"E0",
        b"T0250", b"T0250", b"T01000", b"Y0200", b"T0250", b"Y0503", b"T0600000",
    ])


def asked(path: str, method: str = "POST", *more: tuple[str, str]) -> list[tuple[str, str]]:
    customer = [("x-customer-id", "acme"), ("content-type", "application/json")]
    return [(":method", method), (":path", path), *customer, *more]


def answered(media_type: str, status: int = 200) -> list[tuple[str, str]]:
    return [(":status", str(status)), ("content-type", media_type)]


def seeds():
    for cases in sorted(FIXTURES.glob("llm/*/cases.json")):
        host = (cases.parent / "host").read_text().strip() if (cases.parent / "host").exists() else "gateway"
        for case in json.loads(cases.read_text()):
            answer = (cases.parent / case["file"]).read_bytes()
            request = asked(case["path"], case["method"], (":authority", host))
            body = json.dumps(case.get("request") or {}).encode()
            response = answered(case.get("content_type") or "application/json", case.get("status") or 200)
            response += [(name, str(value)) for name, value in (case.get("response_headers") or {}).items()]
            yield exchange(request, body, response, answer)
    for cases in sorted(FIXTURES.glob("a2a/*.json")):
        for case in json.loads(cases.read_text()):
            request = asked("/a2a" + case["path"], case["method"])
            response = answered(case["content_type"] or "", case["status"])
            yield exchange(request, (case["request"] or "").encode(), response, (case["body"] or "").encode())
    session = ("mcp-session-id", "s")
    for method in ["tools/call", "ping", "tasks/result", "tasks/get", "notifications/cancelled"]:
        body, result = (CALL % (1, method, "analyze_x")).encode(), (RESULT % 1).encode()
        yield exchange(asked("/mcp", "POST", session), body, answered("application/json"), result)
        yield exchange(asked("/mcp"), body, answered("text/event-stream"), b"id: 1\ndata: " + result + b"\n\n")
    batch = [CALL % (number, "tools/call", tool) for number, tool in enumerate(["analyze_x", "lookup_x", "echo"])]
    results = [RESULT % number for number in range(3)]
    yield exchange(
        asked("/mcp"), f"[{','.join(batch)}]".encode(), answered("application/json"), f"[{','.join(results)}]".encode()
    )
    odd = b'{"id":null,"Method":"tools/call","method":"ping","params":{"name":"analyze_x","name":"echo"}}'
    yield exchange(asked("/mcp"), odd, answered("application/json"), (RESULT % "null").encode())
    yield exchange(asked("/mcp", "DELETE", session), b"", answered("text/plain"), b"")
    resumed = asked("/mcp", "GET", session, ("last-event-id", "1"))
    yield exchange(resumed, b"", answered("text/event-stream"), b"data: " + (RESULT % 1).encode() + b"\n\n")
    yield exchange(asked("/api/x"), b"abc", answered("text/plain"), b"def")


if __name__ == "__main__":
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds()):
        for config in b"01":
            (directory / f"seed-{number}-{config - 48}").write_bytes(bytes([config]) + seed)
