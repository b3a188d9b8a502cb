-- Where a device belongs in the organisation, what people wrote on it (a JSON object of texts), and how often either or its
-- name was changed.
ALTER TABLE device ADD COLUMN org TEXT NOT NULL DEFAULT '/';
ALTER TABLE device ADD COLUMN labels TEXT NOT NULL DEFAULT '{}';
ALTER TABLE device ADD COLUMN version BIGINT NOT NULL DEFAULT 1;

-- Where that belonged, at the time, which a row of the audit speaks of; none: to the whole.
ALTER TABLE audit ADD COLUMN org TEXT;
