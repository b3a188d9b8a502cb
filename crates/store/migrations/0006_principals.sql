-- Who may use the platform beside the administrator: tokens of programs, and people. One name is one of them, so that the
-- audit is clear about who did something. The secret is a digest of what is shown, never that itself.
CREATE TABLE principal (
    id         {{blob}} NOT NULL PRIMARY KEY,
    kind       TEXT     NOT NULL,
    name       TEXT     NOT NULL UNIQUE,
    role       TEXT     NOT NULL,
    subtree    TEXT     NOT NULL,
    secret     {{blob}} NOT NULL,
    created    BIGINT   NOT NULL,
    created_by TEXT     NOT NULL,
    expires    BIGINT,
    last_used  BIGINT
);
