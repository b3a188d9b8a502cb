//! Every kind of problem there is, in one table.

use axum::http::StatusCode;

/// Makes the kinds, what a client sees of each, and what people are told of it.
macro_rules! kinds {
    ($($kind:ident, $name:literal, $title:literal, $status:ident, $cause:literal, $cure:literal;)*) => {
        /// A kind of error.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Kind {
            $($kind,)*
        }

        impl Kind {
            /// Every one.
            pub(crate) const ALL: &[Kind] = &[$(Kind::$kind,)*];

            /// Last part of the `type`, title and status.
            pub(super) fn parts(self) -> (&'static str, &'static str, StatusCode) {
                match self {
                    $(Kind::$kind => ($name, $title, StatusCode::$status),)*
                }
            }

            /// Why it happens, and what to do about it; Markdown.
            pub(crate) fn explained(self) -> (&'static str, &'static str) {
                match self {
                    $(Kind::$kind => ($cause, $cure),)*
                }
            }
        }
    };
}

kinds! {
    MalformedRequest, "malformed-request", "Malformed request", BAD_REQUEST,
        "The request is not what HTTP/1.1, or the percent-encoding of an address, allows.",
        "Have a library write it; the detail says what could not be read.";
    MalformedJson, "malformed-json", "Malformed JSON", BAD_REQUEST,
        "The body is not JSON.",
        "Send what a JSON library writes; the detail says where reading ended.";
    Unauthenticated, "unauthenticated", "Token missing or unknown", UNAUTHORIZED,
        "There is no token, nobody has it, or its time is over.",
        "Send `Authorization: Bearer` with a token that is in force; log in again, or have another one made.";
    Forbidden, "forbidden", "Permission missing", FORBIDDEN,
        "The token or user is known, and its role does not have this right, or has it for a part of the organisation only.",
        "Use a token with a role that has it; docs/permissions.md says which.";
    UnknownRoute, "unknown-route", "No such resource", NOT_FOUND,
        "There is nothing at this address.",
        "Look it up in `/v1/openapi.json`; mind the `/v1`.";
    UnknownDevice, "unknown-device", "No such device", NOT_FOUND,
        "No device that you see has this id or serial.",
        "Look for it in `/v1/devices`; it may have been removed, or belong to another part of the organisation.";
    UnknownAttribute, "unknown-attribute", "No such attribute", NOT_FOUND,
        "The device has never reported such an attribute, and nobody has wished it to have a value.",
        "Look at what there is: `/v1/devices/{d}/attributes`.";
    UnknownOperation, "unknown-operation", "No such operation", NOT_FOUND,
        "No operation that waits has this id: it was sent, was taken back, or its time is over.",
        "See what became of it in `/v1/operations`.";
    UnknownWebhook, "unknown-webhook", "No such webhook", NOT_FOUND,
        "No webhook has this id.",
        "Look for it in `/v1/webhooks`.";
    UnknownJob, "unknown-job", "No such job", NOT_FOUND,
        "There is no such job of yours; the last 200 are remembered.",
        "Begin it anew. An import that is sent again leaves what is there already as it is.";
    TooManyJobs, "too-many-jobs", "Too many jobs", CONFLICT,
        "As many jobs run as may.",
        "Wait until one has ended, or cancel one.";
    UnknownView, "unknown-view", "No such view", NOT_FOUND,
        "There is no view of this name at this place.",
        "Look at what there is: `/v1/views`.";
    TooManyViews, "too-many-views", "Too many views", CONFLICT,
        "The place has as many views as it may.",
        "Remove one that nobody uses.";
    UnknownCertificate, "unknown-certificate", "No such certificate", NOT_FOUND,
        "The device has no certificate with this serial number that is in force.",
        "Look at what it has: `/v1/devices/{d}/certificates`.";
    TooManyCertificates, "too-many-certificates", "Too many certificates", CONFLICT,
        "The device has as many valid certificates as it may.",
        "Revoke those it does not use: `/v1/devices/{d}/certificates/revoke`.";
    RootNeeded, "root-needed", "Root still needed", CONFLICT,
        "Devices would be shut out without the root that would go, or might be: they have never been in.",
        "See which: `/v1/authority/overdue`, `/v1/certificates`. Wait until they have come in, give those that have never been in firmware that names the newest root, or set `force`.";
    TooManyWebhooks, "too-many-webhooks", "Too many webhooks", CONFLICT,
        "There are as many webhooks as may be.",
        "Remove one, or raise `webhooks.max_webhooks`.";
    UnknownObject, "unknown-object", "Unknown picture or file", NOT_FOUND,
        "There is no such picture or file, or it has not arrived.",
        "Wait for its event to say that it is there; retention may have removed it.";
    MediaOff, "media-off", "No pictures and files here", NOT_FOUND,
        "This platform keeps no pictures and files.",
        "Ask whoever runs it.";
    QuotaUsed, "quota-used", "No room for more", TOO_MANY_REQUESTS,
        "The device, or the platform, has as many bytes or open tickets as it may.",
        "Wait until retention has made room, or raise `media.device_max_bytes` or `media.max_bytes`.";
    DeviceOffline, "device-offline", "Device offline", CONFLICT,
        "The device is not connected, and this cannot wait for it.",
        "Try again when its presence is `online`; `/v1/devices/{d}/why` says why it is not.";
    KeyUnderWay, "key-under-way", "Request under way", CONFLICT,
        "The request with this idempotency key has not ended yet.",
        "Wait, and ask again with the same key: the answer is then that of the first.";
    KeyTaken, "key-taken", "Idempotency key taken", UNPROCESSABLE_ENTITY,
        "The idempotency key was used for another request.",
        "Use a key once; a new request wants a new one.";
    Unsupported, "unsupported", "Not supported by the device", UNPROCESSABLE_ENTITY,
        "This device, or the way it is connected, cannot do this.",
        "The detail says what is missing; another device, or another firmware, may have it.";
    Stale, "stale", "Changed meanwhile", PRECONDITION_FAILED,
        "Somebody has changed it since you read it.",
        "Read it again, decide anew, and send its new ETag.";
    MethodNotAllowed, "method-not-allowed", "Method not allowed", METHOD_NOT_ALLOWED,
        "There is something at this address, but not for this method.",
        "The header `Allow` says which methods it takes.";
    Timeout, "timeout", "Request not completed in time", REQUEST_TIMEOUT,
        "The body did not arrive in time.",
        "Send it faster, or in smaller parts.";
    SerialTaken, "serial-taken", "Serial taken", CONFLICT,
        "A device with this serial is registered, perhaps in a part of the organisation that you do not see.",
        "Check the serial; a device that is replaced keeps its registration (`rotate` gives it another code).";
    NameTaken, "name-taken", "Name taken", CONFLICT,
        "A token or user has this name.",
        "Choose another; names tell people apart in the audit.";
    UnknownToken, "unknown-token", "No such token", NOT_FOUND,
        "No token that you see has this id or name.",
        "Look for it in `/v1/tokens`.";
    UnknownUser, "unknown-user", "No such user", NOT_FOUND,
        "No user that you see has this id or name.",
        "Look for them in `/v1/users`.";
    UnknownSession, "unknown-session", "No session", NOT_FOUND,
        "What was shown is the token of a program, which has no session and no password.",
        "Log in as a user.";
    LoginRefused, "login-refused", "Name or password wrong", UNAUTHORIZED,
        "Name or password is wrong; which is not said.",
        "Check both; an administrator can set another password.";
    TooManyRequests, "too-many-requests", "Too many requests", TOO_MANY_REQUESTS,
        "More was asked for than may be: requests of one token in a second, wrong passwords, or requests under way on one connection.",
        "Wait as long as `Retry-After` says, and ask for what is needed in fewer requests (streams, lists, bulk).";
    BodyTooLarge, "body-too-large", "Body too large", PAYLOAD_TOO_LARGE,
        "The body, or a part of it, is longer than it may be.",
        "Send less; the detail says how much may be sent. The limit of all bodies is `http.max_body_bytes`.";
    UriTooLong, "uri-too-long", "Address too long", URI_TOO_LONG,
        "The address is longer than it may be.",
        "Put fewer conditions into the query.";
    UnsupportedMediaType, "unsupported-media-type", "Unsupported media type", UNSUPPORTED_MEDIA_TYPE,
        "The body is of a type that is not taken here, or its type is missing.",
        "Send the `Content-Type` that the detail names.";
    WrongHost, "wrong-host", "Wrong host", MISDIRECTED_REQUEST,
        "The name in `Host` is none that this server answers for.",
        "Use a name it is known by, or add the name to `http.allowed_hosts`.";
    UnknownField, "unknown-field", "Unknown field", UNPROCESSABLE_ENTITY,
        "The body or the query has a member that is not known here.",
        "Check its spelling; `field` says which.";
    MissingField, "missing-field", "Missing field", UNPROCESSABLE_ENTITY,
        "A member that is needed is not there.",
        "Add it; `field` says which.";
    DuplicateField, "duplicate-field", "Duplicate field", UNPROCESSABLE_ENTITY,
        "A member is there twice.",
        "Send it once; `field` says which.";
    WrongType, "wrong-type", "Wrong type", UNPROCESSABLE_ENTITY,
        "A member is of another JSON type than it has to be.",
        "Send what `/v1/openapi.json` shows; `field` says which.";
    InvalidValue, "invalid-value", "Invalid value", UNPROCESSABLE_ENTITY,
        "A value is of the right type and cannot be right.",
        "The detail says what it has to be; `field` says which.";
    HeadTooLarge, "head-too-large", "Headers too large", REQUEST_HEADER_FIELDS_TOO_LARGE,
        "The request line and headers are too long or too many.",
        "Send fewer; a large cookie of another site on the same host is the usual reason.";
    StoreUnavailable, "store-unavailable", "Store unavailable", SERVICE_UNAVAILABLE,
        "The database or the disk does not answer.",
        "Try again; `/readyz` and `vestibule admin doctor` say what is wrong.";
    Overloaded, "overloaded", "Answer not ready in time", SERVICE_UNAVAILABLE,
        "The answer was not ready in time.",
        "Try again after a while; ask for less at once.";
    TooManyConnections, "too-many-connections", "Too many connections", SERVICE_UNAVAILABLE,
        "As many connections are open as may be.",
        "Keep connections open and use them again; or raise `http.max_connections`.";
    TooManyStreams, "too-many-streams", "Too many event streams", SERVICE_UNAVAILABLE,
        "As many event streams are open as may be.",
        "Close streams that nobody reads; one stream of all devices does for many.";
    RegistryFull, "registry-full", "Registry full", SERVICE_UNAVAILABLE,
        "There are as many devices as may be.",
        "Remove some, or raise `registry.max_devices`.";
    DeviceBusy, "device-busy", "Device busy", SERVICE_UNAVAILABLE,
        "As much is under way to the device as may be.",
        "Try again when some of it has ended.";
    QueueFull, "queue-full", "Queue full", SERVICE_UNAVAILABLE,
        "As many operations wait for the device as may.",
        "Take some back, or wait until it comes.";
    ShuttingDown, "shutting-down", "Shutting down", SERVICE_UNAVAILABLE,
        "The platform is shutting down.",
        "Connect again in some seconds.";
}
