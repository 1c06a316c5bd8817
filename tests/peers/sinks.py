"""Sends the golden requests of sinks, in the folder of the first argument, to real receivers: to
ClickHouse, whose table the second argument makes, and to a collector of OpenTelemetry."""

import pathlib
import socket
import subprocess
import sys
import time
import urllib.request

import rotel
from chdb.session import Session

GOLDEN = pathlib.Path(sys.argv[1])


def request(name):
    """The path and the body of a golden request."""
    head, body = (GOLDEN / f"{name}.txt").read_text().split("\n\n", 1)
    return head.splitlines()[0].split()[1], body.strip()


def clickhouse():
    session = Session()
    session.query(sys.argv[2].strip().rstrip(";"))
    _, rows = request("clickhouse")
    insert = "INSERT INTO agent_meter_events SETTINGS date_time_input_format = 'best_effort' FORMAT JSONEachRow "
    # A batch that comes twice changes nothing.
    for _ in range(2):
        session.query(insert + rows)
    counted = "FROM agent_meter_events FINAL WHERE superseded = 0"
    sums = f"SELECT count(), sum(quantity), sum(input_tokens), sum(price) {counted}"
    found = str(session.query(sums)).strip()
    assert found == "3,1402,700,0.0033", found
    # Money is exact, to the last digit that the ledger keeps.
    for index, price in enumerate(["0.0000000000000000000000000001", "999999999999.1234567890123456"]):
        row = '{"source": "s", "id": "%d", "version": 1, "time": "2026-07-01 10:00:00", "price": "%s"}'
        session.query(insert + row % (index, price))
    found = str(session.query("SELECT sum(price) FROM agent_meter_events FINAL WHERE source = 's'")).strip()
    assert found == "999999999999.1234567890123456000000000001", found


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def post(url, body):
    request = urllib.request.Request(url, body.encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return answer.status, answer.read().decode()


def opentelemetry():
    http, grpc = free_port(), free_port()
    agent = pathlib.Path(rotel.__file__).parent / "rotel-agent"
    command = [agent, "start", "--exporter", "blackhole", "--debug-log-verbosity", "detailed"]
    command += ["--debug-log", "logs", "--debug-log", "metrics"]
    command += ["--otlp-http-endpoint", f"127.0.0.1:{http}", "--otlp-grpc-endpoint", f"127.0.0.1:{grpc}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            for _ in range(200):
                with socket.socket() as one:
                    if one.connect_ex(("127.0.0.1", http)) == 0:
                        break
                time.sleep(0.05)
            for name in ["otlp_logs", "otlp_metrics"]:
                path, body = request(name)
                status, answer = post(f"http://127.0.0.1:{http}{path}", body)
                assert (status, answer) == (200, '{"partialSuccess":null}'), (name, status, answer)
            # It has read them when it has said so.
            time.sleep(1)
        finally:
            process.terminate()
        told = process.stdout.read()
    for expected in [
        "EventName: agent-meter.token_consumption",
        "-> gen_ai.usage.input_tokens: Int(-300)",
        "-> agent_meter.price: Str(-0.01)",
        "Timestamp: 1782900004000000000",
        "-> agent_meter.token.type: Str(input)",
        "Value: -300",
    ]:
        assert expected in told, f"{expected} is not in:\n{told}"


clickhouse()
opentelemetry()
print("3 receivers took all")
