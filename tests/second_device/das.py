"""The device's half of a DAS connection: login record, envelope and MQTT by paho [9, 10.1]."""

from __future__ import annotations

import json
import select
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import uuid4

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.reasoncodes import ReasonCode

from osap import READ_TIMEOUT, ProtocolError, cbc_open, cbc_seal

KEEP_ALIVE = 30
PASSWORD = "test"
WILL_TOPIC_LENGTH = 128

ACCEPTED = 0
SESSION_UNKNOWN = 11
SESSION_EXISTS = 12

FULL = "full"
LIGHT = "light"

# (key, value) pairs and not a dict: the real client repeats the key "0" for every unused slot.
SDK_VERSIONS = [("1000", "V3.0.0"), ("1100", "v2.0.0")] + [("0", "")] * 7
SDK_VERSIONS_G1 = [("1000", "V2.3.2"), ("1100", "v1.0.0"), ("1002", "V2.0.0")] + [("0", "")] * 6


# Login [9.1, 9.2]


def will_topic(serial: str, first: bool) -> str:
    """Zero bytes up to 128; str and bytes are equally long because a serial is ASCII."""
    return f"/Basic/pu2cenplt/{serial}/{'first' if first else 'break'}connect".ljust(WILL_TOPIC_LENGTH, "\0")


def full_record(serial: str, dev_id: str, lbs_domain: str, *, g1: bool = False, **about: str) -> bytes:
    """`about` may name FirmwareVersion, DevType, DevTypeDisplay and MAC. G1 has two members of its own."""
    slots = SDK_VERSIONS_G1 if g1 else SDK_VERSIONS
    versions = ",".join(f"{_compact(key)}:{_compact(value)}" for key, value in slots)
    record = {
        "DevSerial": "",
        "SubSerial": serial,
        "FirmwareVersion": about.get("FirmwareVersion", "V1.0.0 build 260101"),
        "DevType": about.get("DevType", "SECOND"),
        "DevTypeDisplay": about.get("DevTypeDisplay", "Second device"),
        "MAC": about.get("MAC", "02:00:00:00:00:02"),
        "Status": 1,
        **({"NickName": ""} if g1 else {}),
        "FirmwareIdentificationCode": "",
        **({"dev_oeminfo": 0} if g1 else {}),
        "LbsDomain": lbs_domain,
        "RegMode": 1,
        "SDKMainVersion": "",
        "DeviceID": dev_id,
    }
    return f'{_compact(record)[:-1]},"SDKVersion":{{{versions}}}}}'.encode()


def short_record(serial: str, dev_id: str) -> bytes:
    return _compact({"SubSerial": serial, "DeviceID": dev_id}).encode()


# Envelope and topics [9.6, 9.7, 10.1]


class Message(NamedTuple):
    topic: str
    general: dict[str, Any]
    application: str


def seal(session_key: bytes, general: dict[str, Any], application: str) -> bytes:
    head = _compact(general).encode()
    return cbc_seal(session_key, len(head).to_bytes(2, "big") + head + application.encode())


def unseal(session_key: bytes, payload: bytes | bytearray) -> tuple[dict[str, Any], str]:
    plaintext = cbc_open(session_key, bytes(payload))
    end = 2 + int.from_bytes(plaintext[:2], "big")
    if len(plaintext) < max(end, 2):
        raise ProtocolError("general payload is longer than the message")
    try:
        general = json.loads(plaintext[2:end])
        application = plaintext[end:].decode()
    except ValueError as error:
        raise ProtocolError(f"payload is not text: {error}") from error
    if not isinstance(general, dict):
        raise ProtocolError("general payload is not a JSON object")
    return general, application


def filters(serial: str) -> list[str]:
    return [f"/iot/{serial}/#", f"/{serial}/#"]


def event_topic(serial: str, path: str) -> str:
    resource, index, area, name = path.split("/")
    return f"/iot/{serial}/global/{index}-{resource}/model/event/report/{area}/{name}"


def operation_of(topic: str) -> str | None:
    """RESOURCE/INDEX/AREA/NAME of the operation a downlink asks for [10.1]."""
    match topic.split("/"):
        case ["", "iot", _, "global", place, "model", "service", "operate", area, name]:
            index, _, resource = place.partition("-")
            return f"{resource}/{index}/{area}/{name}"
    return None


def reply_topic(topic: str) -> str:
    """A reply goes to the topic of its request, up instead of down [9.8]."""
    head, _, tail = topic.rpartition("/model/service/operate/")
    return f"{head}/model/service/operate_reply/{tail}"


def shadow_topic(serial: str, place: str, message: str) -> str:
    """`place` is INDEX-RESOURCE [9.7, 10.2]."""
    return f"/iot/{serial}/global/{place}/basic/shadow/{message}"


def shadow_message(topic: str) -> tuple[str, str] | None:
    """INDEX-RESOURCE and message of a downlink of state synchronisation [10.2]."""
    match topic.split("/"):
        case ["", "iot", _, "global", place, "basic", "shadow", message]:
            return place, message
    return None


def shadow_report(area: str, name: str, value: Any, version: int) -> str:
    reported = {"domain": area, "identifier": name, "value": value}
    return _compact({"method": "report", "spv": 3, "state": {"reported": reported, "version": version}})


def with_basic(event: dict[str, Any]) -> dict[str, Any]:
    """The TSL library's addition to an event that has no `basic`."""
    if "basic" in event:
        return event
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return {**event, "basic": {"dateTime": now, "UUID": uuid4().hex}}


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


# MQTT


class _Paho(mqtt.Client):
    """What OSAP needs of paho and its public interface does not give."""

    def __init__(self, clean_session: bool, client_id: str) -> None:
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=mqtt.MQTTv311,
            # Otherwise paho answers CONNACK 1 and 2 with a CONNECT of its own choice.
            reconnect_on_failure=False,
        )
        # The constructor refuses an empty client id without clean session, as MQTT does; the light login is so [9.1].
        self._clean_session = clean_session
        self.connack: int | None = None
        self.pong = False

    def _handle_connack(self) -> MQTTErrorCode:
        # Callbacks of version 2 merge every code above 5 into "Unspecified error", and no callback is told 1 or 2.
        packet = self._in_packet["packet"]
        if len(packet) == 2:
            self.connack = packet[1]
        return super()._handle_connack()

    def _handle_pingresp(self) -> MQTTErrorCode:
        self.pong = True
        return super()._handle_pingresp()

    def ping(self) -> None:
        """PINGREQ now: paho's own timer counts from the last traffic, the real client's from its last PINGREQ [9.9]."""
        self.pong = False
        self._send_pingreq()


class Link:
    """One DAS connection; every step waits for its answer, as the real client does [9.10]."""

    def __init__(
        self,
        serial: str,
        session_key: bytes,
        *,
        login: str,
        first: bool,
        record: bytes,
        on_downlink: Callable[[Message], None],
        client_id: str | None = None,
    ) -> None:
        """Without a client id it is empty, and a password is sent [9.1]."""
        self._key = session_key
        self._acknowledged: set[int] = set()
        self._granted: dict[int | None, ReasonCode] = {}
        self._next_ping = 0.0
        self._heard = 0.0
        self._mqtt = _Paho(login == FULL, client_id or "")
        # paho 2.2 takes the zero bytes of the will topic as they are.
        self._mqtt.will_set(will_topic(serial, first), cbc_seal(session_key, record), qos=1, retain=True)
        self._mqtt.username_pw_set(serial, PASSWORD if client_id is None else None)
        self._mqtt.on_publish = lambda client, data, mid, code, properties: self._acknowledged.add(mid)
        self._mqtt.on_subscribe = lambda client, data, mid, codes, properties: self._granted.update({mid: codes[0]})
        self._mqtt.on_unsubscribe = lambda client, data, mid, codes, properties: self._acknowledged.add(mid)
        self._mqtt.on_message = lambda client, data, message: on_downlink(
            Message(message.topic, *unseal(session_key, message.payload))
        )

    def connect(self, host: str, port: int) -> int:
        """The code of the CONNACK. paho closes the connection after any code but 0."""
        try:
            self._mqtt.connect(host, port, KEEP_ALIVE)
        except OSError as error:
            raise ProtocolError(f"DAS {host}:{port}: {error}") from error
        self._heard = time.monotonic()
        self._next_ping = self._heard + KEEP_ALIVE
        self._wait(lambda: self._mqtt.connack is not None, "CONNACK")
        code = self._mqtt.connack
        assert code is not None
        return code

    def subscribe(self, topic_filter: str) -> int:
        """The granted QoS."""
        _, mid = self._mqtt.subscribe(topic_filter, qos=1)
        self._wait(lambda: mid in self._granted, f"SUBACK for {topic_filter}")
        granted = self._granted.pop(mid).value
        if granted > 2:
            raise ProtocolError(f"subscription to {topic_filter} refused with {granted}")
        return granted

    def unsubscribe(self, topic_filter: str) -> None:
        _, mid = self._mqtt.unsubscribe(topic_filter)
        self._wait(lambda: mid in self._acknowledged, f"UNSUBACK for {topic_filter}")

    def publish(self, topic: str, application: str, seq: int) -> tuple[int, bool]:
        """Packet id and whether its PUBACK came in time: a missing one has no other effect on a live link [9.5]."""
        payload = seal(self._key, {"Seq": seq}, application)
        mid = self._mqtt.publish(topic, payload, qos=1, retain=True).mid
        return mid, self._turn(lambda: mid in self._acknowledged, READ_TIMEOUT)

    def send(self, topic: str, application: str, seq: int) -> None:
        """The same without waiting: for what is said while something else is waited for."""
        self._mqtt.publish(topic, seal(self._key, {"Seq": seq}, application), qos=1, retain=True)

    def ping(self) -> None:
        self._mqtt.ping()
        self._next_ping = time.monotonic() + KEEP_ALIVE
        self._wait(lambda: self._mqtt.pong, "PINGRESP")

    def hold(self, seconds: float) -> None:
        self._turn(lambda: False, seconds)

    def disconnect(self) -> None:
        if self._mqtt.disconnect() != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise ProtocolError("the connection was lost before DISCONNECT")

    def drop(self) -> None:
        stream = self._mqtt.socket()
        if stream is not None:
            stream.close()

    def _wait(self, done: Callable[[], bool], what: str) -> None:
        if not self._turn(done, READ_TIMEOUT):
            raise ProtocolError(f"no {what} within {READ_TIMEOUT:g} s")

    def _turn(self, done: Callable[[], bool], seconds: float) -> bool:
        """Moves packets until `done`; False when the time is over. Pings on the way [9.9]."""
        deadline = time.monotonic() + seconds
        while not done():
            stream = self._mqtt.socket()
            if stream is None:
                raise ProtocolError("the DAS closed the connection")
            now = time.monotonic()
            if now >= deadline:
                return False
            if now >= self._heard + 2 * KEEP_ALIVE:
                raise ProtocolError(f"the DAS was silent for {2 * KEEP_ALIVE} s")
            if now >= self._next_ping:
                self._next_ping = now + KEEP_ALIVE
                self._mqtt.ping()
            wake = min(deadline, self._next_ping, self._heard + 2 * KEEP_ALIVE)
            readable, writable, _ = select.select(
                [stream], [stream] if self._mqtt.want_write() else [], [], max(0.0, wake - now)
            )
            if readable:
                self._heard = time.monotonic()
                self._mqtt.loop_read()
            if writable:
                self._mqtt.loop_write()
        return True
