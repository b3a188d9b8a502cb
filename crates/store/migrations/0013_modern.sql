-- What was agreed with a device under a modern suite, sealed; its adapter knows what is in it.
ALTER TABLE device ADD COLUMN tickets {{blob}};
-- Whether the device has come in by a modern suite: the legacy ones are closed to it until an operator opens them again.
ALTER TABLE device ADD COLUMN modern BIGINT NOT NULL DEFAULT 0;
-- Whether an operator lets the device in over TLS alone.
ALTER TABLE device ADD COLUMN tls_only BIGINT NOT NULL DEFAULT 0;
