-- A device that an operator has shut out keeps what it is and what it has.
ALTER TABLE device ADD COLUMN disabled BIGINT NOT NULL DEFAULT 0;
