CREATE TABLE events (
    position    INTEGER PRIMARY KEY,
    source      TEXT NOT NULL,
    id          TEXT NOT NULL,
    sequence    INTEGER NOT NULL,
    type        TEXT NOT NULL,
    time        TEXT NOT NULL,
    subject     TEXT NOT NULL,
    session_id  TEXT,
    raw         TEXT NOT NULL,
    received_at TEXT NOT NULL,
    UNIQUE (source, id)
) STRICT;
CREATE INDEX events_session ON events (session_id);

CREATE TABLE calls (
    position      INTEGER PRIMARY KEY REFERENCES events (position),
    source        TEXT NOT NULL,
    sequence      INTEGER NOT NULL,
    session_id    TEXT NOT NULL,
    call_id       TEXT NOT NULL,
    time_ms       INTEGER NOT NULL,
    day           TEXT NOT NULL,
    customer      TEXT NOT NULL,
    team          TEXT NOT NULL,
    agent         TEXT NOT NULL,
    api_key_hash  TEXT,
    credential_type TEXT,
    product       TEXT NOT NULL,
    product_type  TEXT NOT NULL,
    kind          TEXT NOT NULL,
    tool          TEXT NOT NULL,
    status        TEXT NOT NULL,
    tier          TEXT NOT NULL,
    duration_ms   INTEGER NOT NULL,
    http_status   INTEGER NOT NULL,
    transport     TEXT,
    request_bytes INTEGER,
    response_bytes INTEGER,
    billable      INTEGER NOT NULL,
    price         TEXT NOT NULL,
    currency      TEXT NOT NULL
) STRICT;
CREATE INDEX calls_session ON calls (session_id, source);
CREATE INDEX calls_customer ON calls (customer);
CREATE INDEX calls_call ON calls (source, call_id);

CREATE TABLE generations (
    position        INTEGER PRIMARY KEY REFERENCES events (position),
    source          TEXT NOT NULL,
    sequence        INTEGER NOT NULL,
    session_id      TEXT NOT NULL,
    generation_id   TEXT NOT NULL,
    call_id         TEXT,
    tool            TEXT,
    attribution     TEXT NOT NULL,
    time_ms         INTEGER NOT NULL,
    day             TEXT NOT NULL,
    customer        TEXT NOT NULL,
    team            TEXT NOT NULL,
    agent           TEXT NOT NULL,
    api_key_hash    TEXT,
    credential_type TEXT,
    product         TEXT NOT NULL,
    product_type    TEXT NOT NULL,
    provider        TEXT NOT NULL,
    model           TEXT NOT NULL,
    service_tier    TEXT NOT NULL,
    completeness    TEXT NOT NULL,
    estimated       INTEGER NOT NULL,
    input           INTEGER,
    output          INTEGER,
    reasoning       INTEGER,
    cache_read      INTEGER,
    cache_write     INTEGER,
    provider_cost   TEXT,
    unpriced_reason TEXT,
    rate_card       TEXT,
    price           TEXT NOT NULL,
    currency        TEXT NOT NULL
) STRICT;
CREATE INDEX generations_session ON generations (session_id, source);
CREATE INDEX generations_customer ON generations (customer);

CREATE TABLE sessions (
    position     INTEGER PRIMARY KEY,
    source       TEXT NOT NULL,
    session_id   TEXT NOT NULL,
    fold_order   INTEGER NOT NULL,
    state        TEXT NOT NULL,
    session_key  TEXT NOT NULL,
    product      TEXT NOT NULL,
    product_type TEXT NOT NULL,
    customer     TEXT NOT NULL,
    team         TEXT NOT NULL,
    agent        TEXT NOT NULL,
    api_key_hash TEXT,
    credential_type TEXT,
    started_at   TEXT,
    ended_at     TEXT,
    ended_ms     INTEGER,
    close_reason TEXT,
    totals       TEXT,
    currency     TEXT,
    UNIQUE (source, session_id)
) STRICT;
CREATE INDEX sessions_state ON sessions (state);

CREATE TABLE guard_totals (
    guard_id       TEXT NOT NULL,
    scope_key      TEXT NOT NULL,
    period_ms      INTEGER NOT NULL,
    source         TEXT NOT NULL,
    kind           TEXT NOT NULL,
    mode           TEXT,
    scope          TEXT NOT NULL,
    customer       TEXT NOT NULL,
    product        TEXT,
    agent          TEXT,
    session_key    TEXT,
    tool           TEXT,
    metric         TEXT,
    period         TEXT NOT NULL,
    period_start   TEXT,
    sequence       INTEGER NOT NULL,
    provider_cost  TEXT NOT NULL,
    revenue        TEXT NOT NULL,
    calls          INTEGER NOT NULL,
    tokens         INTEGER NOT NULL,
    currency       TEXT,
    level_sequence INTEGER NOT NULL,
    level          INTEGER NOT NULL,
    told_ms        INTEGER NOT NULL,
    PRIMARY KEY (guard_id, scope_key, period_ms, source)
) STRICT, WITHOUT ROWID;
CREATE INDEX events_alerts ON events (position) WHERE type IN
    ('agent-meter.margin_level_changed', 'agent-meter.budget_level_changed',
     'agent-meter.loop_level_changed');

CREATE TABLE webhook_deliveries (
    position  INTEGER NOT NULL REFERENCES events (position),
    webhook   TEXT NOT NULL,
    state     TEXT NOT NULL,
    failures  INTEGER NOT NULL,
    queued_ms INTEGER NOT NULL,
    due_ms    INTEGER NOT NULL,
    error     TEXT,
    PRIMARY KEY (position, webhook)
) STRICT, WITHOUT ROWID;
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (webhook, due_ms)
    WHERE state = 'waiting';
