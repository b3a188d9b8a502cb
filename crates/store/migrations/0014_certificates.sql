-- The platform's own certificates with their keys, sealed: roots and intermediates of the authorities of servers and of
-- devices, and what the platform shows. `kind` says which, `chain` is PEM, leaf first.
CREATE TABLE certificate (
    id     TEXT NOT NULL PRIMARY KEY,
    kind   TEXT NOT NULL,
    chain  TEXT NOT NULL,
    sealed {{blob}}
);

-- Certificates of devices that were issued here: until they end, also when they are revoked and when their device is gone.
-- `serial` is the certificate's, `device` that of the device.
CREATE TABLE device_certificate (
    serial  {{blob}} NOT NULL PRIMARY KEY,
    issuer  TEXT     NOT NULL,
    device  TEXT     NOT NULL,
    made    BIGINT   NOT NULL,
    ends    BIGINT   NOT NULL,
    revoked BIGINT
);
CREATE INDEX device_certificate_device ON device_certificate (device);
CREATE INDEX device_certificate_ends ON device_certificate (ends);
CREATE INDEX device_certificate_revoked ON device_certificate (revoked) WHERE revoked IS NOT NULL;
