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
    code         {{blob}} NOT NULL
);

CREATE TABLE credential (
    device          {{blob}} NOT NULL REFERENCES device (id) ON DELETE CASCADE,
    slot            TEXT     NOT NULL CHECK (slot IN ('committed', 'candidate')),
    suite           TEXT     NOT NULL,
    epoch           BIGINT   NOT NULL,
    dev_id          TEXT     NOT NULL,
    master_key      {{blob}} NOT NULL,
    session_key     {{blob}},
    created         BIGINT   NOT NULL,
    code_case_lower BIGINT   NOT NULL,
    PRIMARY KEY (device, slot)
);
