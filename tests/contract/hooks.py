"""What schemathesis cannot know of the HTTP API from its OpenAPI document."""

import json

import schemathesis

# What would take away the devices that the others are tried on.
TAKES_AWAY = ("remove", "disable", "move")


@schemathesis.serializer("application/x-ndjson")
def ndjson(context, value):
    """One JSON text on each line."""
    if isinstance(value, str):
        return value.encode()
    rows = value if isinstance(value, list) else [value]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@schemathesis.hook
def before_call(context, case, kwargs):
    """Has the same done to many devices in such a way that they are still there."""
    body = case.body
    if case.operation.label == "POST /v1/bulk" and isinstance(body, dict) and body.get("action") in TAKES_AWAY:
        if isinstance(body.get("dry_run", False), bool):
            body["dry_run"] = True
