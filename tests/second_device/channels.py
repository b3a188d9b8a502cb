"""Topics and bodies of the channels above the envelope [9.7, 10]. Nothing here sends or keeps anything."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import uuid4
from xml.sax.saxutils import unescape

import osap

GLOBAL = "global"

# Command domains, and commands of the older topic form [10.4 to 10.6]
ACCESS, BASE, HUB = 1000, 1100, 7002
KEEP_ALIVE, RISK_LIST, FORCED_OFFLINE = (ACCESS, 1), (ACCESS, 2), (ACCESS, 3)
REDIRECTS = ((ACCESS, 0x3479), (ACCESS, 0x491F))
OFFLINE_NOTICE, OWNER_QUERY, OWNER_ANSWER = (BASE, 0x2807), (BASE, 0x3445), (BASE, 0x3446)
BINDING_CHANGED = (BASE, 0x4947)
CHALLENGE, CHALLENGE_ANSWER = (BASE, 0x4F14), (BASE, 0x4F15)
PRESENCE, PRESENCE_ANSWER = (BASE, 0x3808), (BASE, 0x3809)
CHILDREN, ONLINE, CHILD_AUTH, CHILD_VERDICT = (HUB, 1), (HUB, 3), (HUB, 16), (HUB, 17)

Command = tuple[int, int]


def compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


# Parts of a device: RESOURCE/INDEX/AREA/NAME here, INDEX-RESOURCE as one level of a topic


def place_of(path: str) -> str:
    resource, index, _, _ = path.split("/")
    return f"{index}-{resource}"


def _path(place: str, area: str, name: str) -> str:
    index, _, resource = place.partition("-")
    return f"{resource}/{index}/{area}/{name}"


# Thing model [10.1]


class Model(NamedTuple):
    """What a topic of the thing model is about."""

    sub: str
    path: str
    method: str
    message: str


def model_topic(serial: str, about: Model) -> str:
    _, _, area, name = about.path.split("/")
    place = place_of(about.path)
    return f"/iot/{serial}/{about.sub}/{place}/model/{about.method}/{about.message}/{area}/{name}"


def model_message(topic: str) -> Model | None:
    match topic.split("/"):
        case ["", "iot", _, sub, place, "model", method, message, area, name]:
            return Model(sub, _path(place, area, name), method, message)
    return None


def event_topic(serial: str, path: str, sub: str = GLOBAL) -> str:
    return model_topic(serial, Model(sub, path, "event", "report"))


def with_basic(event: dict[str, Any]) -> dict[str, Any]:
    """The TSL library's addition to an event that has no `basic`."""
    if "basic" in event:
        return event
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return {**event, "basic": {"dateTime": now, "UUID": uuid4().hex}}


def value_body(value: Any) -> str:
    """How the model library carries a value."""
    return compact({"data": {"Value": value}})


def value_of(body: dict[str, Any]) -> Any:
    """What a `data` means: a member `Value` is the value, or else it is one itself."""
    data = body.get("data")
    return data["Value"] if isinstance(data, dict) and "Value" in data else data


# State synchronisation [10.2]


class Shadow(NamedTuple):
    """What a topic of state synchronisation is about; `place` is INDEX-RESOURCE."""

    sub: str
    place: str
    message: str


def shadow_topic(serial: str, about: Shadow) -> str:
    return f"/iot/{serial}/{about.sub}/{about.place}/basic/shadow/{about.message}"


def shadow_message(topic: str) -> Shadow | None:
    match topic.split("/"):
        case ["", "iot", _, sub, place, "basic", "shadow", message]:
            return Shadow(sub, place, message)
    return None


def shadow_report(path: str, value: Any, version: int) -> str:
    _, _, area, name = path.split("/")
    reported = {"domain": area, "identifier": name, "value": value}
    return compact({"method": "report", "spv": 3, "state": {"reported": reported, "version": version}})


def shadow_query() -> str:
    return compact({"method": "query", "windowsize": 16256})


def shadow_wishes(place: str, body: dict[str, Any]) -> list[tuple[str, Any]]:
    """Path and value of what a set or a query_reply wishes: the one has an object, the other a list."""
    desired = body["state"]["desired"]
    wishes = desired if isinstance(desired, list) else [desired]
    return [(_path(place, wish["domain"], wish["identifier"]), wish["value"]) for wish in wishes]


def shadow_set_reply(code: int) -> str:
    return compact({"method": "set_reply", "payload": {"code": code}, "timestamp": 0})


# Firmware update [10.3]


UPGRADE = "ota/upgrade"


def module_topic(serial: str, method: str, message: str) -> str:
    return f"/iot/{serial}/{GLOBAL}/0-{GLOBAL}/{method}/{message}"


# Object storage [10.7]


def storage_topic(serial: str, method: str, message: str) -> str:
    return module_topic(serial, f"storage/{method}", message)


def is_storage_reply(topic: str) -> bool:
    return "/storage/" in topic and topic.endswith("/query_reply")


def storage_wish(name: str, content: bytes, media_type: str) -> str:
    digest = hashlib.sha256(content).hexdigest()
    return compact({"objects": [{"name": name, "size": len(content), "contentType": media_type, "sha256": digest}]})


def storage_result(name: str, code: int, etag: str) -> str:
    return compact({"objects": [{"name": name, "code": code, "etag": etag}]})


def ota_topic(serial: str, method: str) -> str:
    return module_topic(serial, f"ota/{method}", "report")


def ota_inform(module: str, version: str) -> str:
    return compact({"modules": [{"index": 0, "module": module, "fw_ver": version}], "ver": "V1.0.0"})


def ota_progress(module: str, status: int, percent: int) -> str:
    about = {"status": status, "process": percent, "code": "0x00000000", "errorMsg": "success", "module": module}
    return compact(about)


def is_upgrade(topic: str) -> bool:
    match topic.split("/"):
        case ["", "iot", _, sub, place, "ota", "upgrade", "operate"]:
            return sub == GLOBAL and place == f"0-{GLOBAL}"
    return False


def upgrade_files(body: str) -> list[dict[str, Any]]:
    """What is to be fetched; the addresses have no scheme."""
    files = json.loads(body)["file_info"]
    return [{name: file[name] for name in ("module", "url", "degist", "fw_ver", "size")} for file in files]


def upgrade_reply(accepted: bool) -> str:
    if accepted:
        return compact({"code": "0x00000000", "errorMsg": "Succeeded"})
    return compact({"code": "0x0xffffffff", "errorMsg": "device receive failed!"})


# Pass-through: a ruling of the platform's, in the form of a module


def pass_topic(serial: str, path: str, sub: str = GLOBAL) -> str:
    _, _, area, name = path.split("/")
    return f"/iot/{serial}/{sub}/{place_of(path)}/pass/{area}/{name}/report"


def pass_message(topic: str) -> tuple[str, str] | None:
    """Sub-device and path of what is delivered."""
    match topic.split("/"):
        case ["", "iot", _, sub, place, "pass", area, name, "deliver"]:
            return sub, _path(place, area, name)
    return None


def pass_body(media_type: str, content: bytes) -> bytes:
    return bytes((len(media_type),)) + media_type.encode("ascii") + content


def pass_content(body: bytes) -> tuple[str, bytes]:
    end = 1 + body[0]
    return body[1:end].decode("ascii"), body[end:]


# Commands of the older form [9.7]


def command_topic(command: Command) -> str:
    domain, number = command
    return f"/{domain}/{number}"


def command_of(topic: str) -> Command | None:
    match topic.split("/"):
        case ["", _, domain, number] if domain.isdigit() and number.isdigit():
            return int(domain), int(number)
    return None


def command_version(domain: int, *, g1: bool) -> str:
    """The version that the device announced for the domain in its login record."""
    if domain == HUB:
        return "V2.0.0"
    return "v1.0.0" if g1 else "v2.0.0"


def who_am_i(serial: str) -> str:
    """The body of the owner query and of the offline notice [10.4]."""
    return f"<Request><DevSerial>{serial}</DevSerial><Authorization></Authorization></Request>"


def owner_of(body: str) -> tuple[int, str | None]:
    """Result and owner; without an owner the device is unbound."""
    result = re.search(r"<Result>\s*(\d+)\s*</Result>", body)
    user = re.search(r'<User\s+Id\s*=\s*"([^"]*)"', body)
    if result is None:
        raise osap.ProtocolError(f"the answer to the owner query has no result: {body!r}")
    return int(result[1]), user[1] if user and user[1] else None


def new_owner(body: str) -> str | None:
    """Who the device belongs to from now on; None: to nobody."""
    user = re.search(r"<UserId>([^<]*)</UserId>", body)
    if user is None:
        raise osap.ProtocolError(f"a change of binding without a user: {body!r}")
    return unescape(user[1]) or None


def binding_answer() -> str:
    return "<Response><Result>0</Result></Response>"


def challenge_of(body: str) -> tuple[int, int]:
    """The token, and how many seconds there are to show oneself."""
    challenge = json.loads(body)
    return challenge["token"], challenge["bindPeriod"]


def presence_body(token: int) -> str:
    """Somebody was there: the token plus 1."""
    return compact({"token": token + 1})


def risk_list(body: str) -> dict[int, set[int]]:
    """By domain; an empty set stands for all of it."""
    return {int(domain): set(commands) for domain, commands in json.loads(body)["risk"].items()}


def is_forbidden(risks: dict[int, set[int]], command: Command) -> bool:
    domain, number = command
    return domain in risks and (not risks[domain] or number in risks[domain])


def redirect_host(body: str) -> str:
    host = re.search(r"<DomainName>\s*([^<\s]+)\s*</DomainName>", body)
    if host is None:
        raise osap.ProtocolError(f"a redirect without a host: {body!r}")
    return host[1]


def pushed_keep_alive(body: str) -> int:
    interval = json.loads(body)["KeepAlive"]["Interval"]
    if type(interval) is not int or interval < 1:
        raise osap.ProtocolError(f"a keep-alive of {interval!r}")
    return interval


# Hub [10.6]


def child_proof(serial: str, code: str, *, lower_case: bool) -> str:
    """Command 16; the proof is D3 of the child's own code and serial. A right one has an upper-case D1."""
    proof = osap.share_key_s1(code, serial, lower_case).decode()
    return compact({"childserial": serial, "childverifycode": proof, "devAccessMode": 0})


def child_list(states: dict[str, bool], *, ever: bool) -> str:
    """Command 1; only authenticated children. `ever`: there were some before."""
    if not states and not ever:
        return "{}"
    about = {"version": "V1.0.0", "type": "SECOND", "FirmwareIdentificationCode": ""}
    return compact([{"connected": int(here), "childdevid": serial, **about} for serial, here in states.items()])


def online_list(states: dict[str, bool]) -> str:
    """Command 3."""
    return compact([{"connected": int(here), "childdevid": serial} for serial, here in states.items()])
