-- People who have logged in: the digest of what each shows, until when it is theirs.
CREATE TABLE session (
    digest    {{blob}} NOT NULL PRIMARY KEY,
    principal {{blob}} NOT NULL REFERENCES principal (id) ON DELETE CASCADE,
    created   BIGINT   NOT NULL,
    expires   BIGINT   NOT NULL
);
CREATE INDEX session_principal ON session (principal);
CREATE INDEX session_expires ON session (expires);
