-- By which root of the platform's servers each device knows it: the SHA-256 of that root, hexadecimal; empty where the device
-- has said nothing of it, and '-' where it comes without TLS and needs none. `since` is when that was first so.
CREATE TABLE device_root (
    device {{blob}} NOT NULL PRIMARY KEY REFERENCES device (id) ON DELETE CASCADE,
    root   TEXT     NOT NULL,
    since  BIGINT   NOT NULL
);
