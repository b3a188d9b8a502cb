-- The journal on PostgreSQL (on SQLite it lives in segment files of its own). `position` is receive order, so it is also
-- the order of `received`.
CREATE TABLE journal_record (
    position BIGINT   NOT NULL PRIMARY KEY,
    device   BYTEA    NOT NULL,
    serial   TEXT     NOT NULL,
    kind     SMALLINT NOT NULL,
    resource TEXT     NOT NULL,
    idx      TEXT     NOT NULL,
    area     TEXT     NOT NULL,
    name     TEXT     NOT NULL,
    event_id TEXT,
    time     BIGINT   NOT NULL,
    received BIGINT   NOT NULL,
    flags    SMALLINT NOT NULL,
    data     TEXT     NOT NULL
);
CREATE UNIQUE INDEX journal_record_identity ON journal_record (device, event_id) WHERE event_id IS NOT NULL;
CREATE INDEX journal_record_device ON journal_record (device, position, time);
CREATE INDEX journal_record_time ON journal_record USING brin (time);
CREATE INDEX journal_record_received ON journal_record USING brin (received);

-- One row: the next position to be stored, and the token of the process that may store it.
CREATE TABLE journal_mark (
    one    BOOLEAN NOT NULL PRIMARY KEY DEFAULT TRUE CHECK (one),
    next   BIGINT  NOT NULL,
    writer BYTEA   NOT NULL
);
INSERT INTO journal_mark (next, writer) VALUES (1, '');
