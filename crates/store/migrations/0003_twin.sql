-- The twin: what each attribute of a device was last reported as and is wished to be. The two are JSON objects of the
-- platform's making. Reports up to a position of the journal are in here.
CREATE TABLE leaf (
    device   {{blob}} NOT NULL REFERENCES device (id) ON DELETE CASCADE,
    resource TEXT     NOT NULL,
    place    TEXT     NOT NULL,
    area     TEXT     NOT NULL,
    name     TEXT     NOT NULL,
    version  BIGINT   NOT NULL,
    reported TEXT,
    reported_version BIGINT NOT NULL,
    desired  TEXT,
    desired_version  BIGINT NOT NULL,
    PRIMARY KEY (device, resource, place, area, name)
);

CREATE TABLE twin_applied (
    singleton BIGINT NOT NULL PRIMARY KEY CHECK (singleton = 1),
    position  BIGINT NOT NULL
);
