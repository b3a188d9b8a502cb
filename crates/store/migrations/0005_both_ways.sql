-- What a device is a part of.
ALTER TABLE device ADD COLUMN parent {{blob}} REFERENCES device (id) ON DELETE SET NULL;
CREATE INDEX device_parent ON device (parent);

-- Operations that wait for their device. A row is marked before its operation is sent, so that none is sent twice, and goes
-- when it is written down how that ended.
CREATE TABLE queued_operation (
    id          {{blob}} NOT NULL PRIMARY KEY,
    device      {{blob}} NOT NULL REFERENCES device (id) ON DELETE CASCADE,
    resource    TEXT     NOT NULL,
    place       TEXT     NOT NULL,
    area        TEXT     NOT NULL,
    name        TEXT     NOT NULL,
    input       TEXT,
    created     BIGINT   NOT NULL,
    expires     BIGINT   NOT NULL,
    deadline_ms BIGINT   NOT NULL,
    asked_by    TEXT     NOT NULL,
    taken       BIGINT   NOT NULL
);
CREATE INDEX queued_operation_device ON queued_operation (device);

-- Requests that are carried out once however often they come: the digest of what was asked and, once there is one, the
-- answer.
CREATE TABLE idempotency (
    scope   TEXT     NOT NULL,
    key     TEXT     NOT NULL,
    digest  {{blob}} NOT NULL,
    expires BIGINT   NOT NULL,
    answer  TEXT,
    PRIMARY KEY (scope, key)
);
CREATE INDEX idempotency_expires ON idempotency (expires);

-- Who did what. It outlives the devices it speaks of.
CREATE TABLE audit (
    id     {{counted}},
    time   BIGINT  NOT NULL,
    actor  TEXT    NOT NULL,
    action TEXT    NOT NULL,
    device {{blob}},
    serial TEXT,
    detail TEXT    NOT NULL,
    ok     BIGINT  NOT NULL
);
CREATE INDEX audit_time ON audit (time, id);
CREATE INDEX audit_device ON audit (device, time, id);
CREATE INDEX audit_actor ON audit (actor, time, id);
CREATE INDEX audit_action ON audit (action, time, id);
