-- Programs elsewhere that are told what the journal holds. Each is a position in the journal; the secret it is signed with is a
-- sealed value. What became of a record at `stuck_position` has not worked since `stuck_since`.
CREATE TABLE webhook (
    id               {{blob}} NOT NULL PRIMARY KEY,
    name             TEXT,
    url              TEXT     NOT NULL,
    kinds            TEXT     NOT NULL,
    device           {{blob}},
    area             TEXT,
    event            TEXT,
    secret           {{blob}} NOT NULL,
    enabled          BIGINT   NOT NULL,
    disabled_because TEXT,
    created          BIGINT   NOT NULL,
    version          BIGINT   NOT NULL,
    position         BIGINT   NOT NULL,
    stuck_position   BIGINT,
    stuck_since      BIGINT,
    missed           BIGINT   NOT NULL,
    dropped          BIGINT   NOT NULL
);

-- What could not be delivered, in the order of the journal, which still has the record itself until retention.
CREATE TABLE webhook_dead_letter (
    webhook  {{blob}} NOT NULL REFERENCES webhook (id) ON DELETE CASCADE,
    position BIGINT   NOT NULL,
    device   {{blob}} NOT NULL,
    serial   TEXT     NOT NULL,
    kind     TEXT     NOT NULL,
    died     BIGINT   NOT NULL,
    attempts BIGINT   NOT NULL,
    status   BIGINT,
    reason   TEXT     NOT NULL,
    replay   BIGINT   NOT NULL,
    PRIMARY KEY (webhook, position)
);
