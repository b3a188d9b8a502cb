-- Keys that media tickets are signed with, sealed; the newest two are in force.
CREATE TABLE media_key (
    number BIGINT   NOT NULL PRIMARY KEY,
    made   BIGINT   NOT NULL,
    sealed {{blob}} NOT NULL
);

-- Pictures and files: offered (0), under way (1), here (2). A row outlives its device as events do. `bytes` is what the
-- object takes or may take, `length` how long it is once that is known, `digest` the SHA-256 it has or is to have, `told`
-- whether those who follow events have been told (1) that it is here.
CREATE TABLE media_object (
    id         {{blob}} NOT NULL PRIMARY KEY,
    device     {{blob}} NOT NULL,
    kind       TEXT     NOT NULL,
    name       TEXT     NOT NULL,
    media_type TEXT     NOT NULL,
    state      BIGINT   NOT NULL,
    bytes      BIGINT   NOT NULL,
    length     BIGINT,
    digest     {{blob}},
    width      BIGINT,
    height     BIGINT,
    created    BIGINT   NOT NULL,
    deadline   BIGINT   NOT NULL,
    told       BIGINT   NOT NULL
);
CREATE INDEX media_object_device ON media_object (device, state);
CREATE INDEX media_object_digest ON media_object (digest);
CREATE INDEX media_object_deadline ON media_object (state, deadline);
CREATE INDEX media_object_created ON media_object (state, created);
CREATE INDEX media_object_untold ON media_object (created) WHERE state = 2 AND told = 0;
