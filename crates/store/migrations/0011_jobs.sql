-- What is done to many devices at once: who asked for it, and in `detail` (JSON) how far it is and what went wrong. It holds
-- nothing of what was sent.
CREATE TABLE job (
    id       {{blob}} NOT NULL PRIMARY KEY,
    kind     TEXT     NOT NULL,
    org      TEXT     NOT NULL,
    actor    TEXT     NOT NULL,
    created  BIGINT   NOT NULL,
    finished BIGINT,
    state    TEXT     NOT NULL,
    dry_run  BIGINT   NOT NULL,
    detail   TEXT     NOT NULL
);
