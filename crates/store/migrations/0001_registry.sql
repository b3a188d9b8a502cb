-- The registry: devices and what they authenticate with. Ids are the 16 bytes of a UUID, times Unix milliseconds,
-- secrets sealed values.
CREATE TABLE device (
    id           {{blob}} NOT NULL PRIMARY KEY,
    serial       TEXT     NOT NULL UNIQUE,
    family       TEXT     NOT NULL,
    product      TEXT,
    name         TEXT,
    created      BIGINT   NOT NULL,
    enrol_until  BIGINT   NOT NULL,
    last_failure TEXT,
    presence     TEXT,
    code         {{blob}} NOT NULL,
    -- What the device authenticates with: proven by it, and given to it but not proven yet. In its own row, so that a
    -- change is one statement.
    committed    {{blob}},
    candidate    {{blob}}
);
