-- The key that everything sealed in this database is sealed under: its id, and a value sealed under it, which tells whether
-- a key is that one.
CREATE TABLE envelope (
    one    BIGINT   NOT NULL PRIMARY KEY,
    key_id TEXT     NOT NULL,
    proof  {{blob}} NOT NULL,
    since  BIGINT   NOT NULL
);

-- Whether the device's code works once only, and since when it is used up.
ALTER TABLE device ADD COLUMN one_time BIGINT NOT NULL DEFAULT 0;
ALTER TABLE device ADD COLUMN code_spent BIGINT;

-- Whether the device has to show a certificate; NULL: as its product has to.
ALTER TABLE device ADD COLUMN certificate BIGINT;

-- What is demanded of the devices of a product.
CREATE TABLE product_rule (
    product     TEXT   NOT NULL PRIMARY KEY,
    certificate BIGINT NOT NULL
);
