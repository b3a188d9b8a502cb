-- Lists of devices that people come back to: what is looked for and in which order (JSON), for all who are bound to the same
-- place in the organisation.
CREATE TABLE device_view (
    org     TEXT   NOT NULL,
    name    TEXT   NOT NULL,
    query   TEXT   NOT NULL,
    actor   TEXT   NOT NULL,
    changed BIGINT NOT NULL,
    PRIMARY KEY (org, name)
);
