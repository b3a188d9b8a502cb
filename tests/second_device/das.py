"""The device's half of a DAS connection: login record, envelope and MQTT by paho [9]."""

from __future__ import annotations

import json
import select
import time
from collections.abc import Callable
from typing import Any, NamedTuple

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
SDK_VERSIONS = [("1000", "V3.0.0"), ("1100", "v2.0.0")]
SDK_VERSIONS_G1 = [("1000", "V2.3.2"), ("1100", "v1.0.0"), ("1002", "V2.0.0")]
SDK_VERSION_HUB = ("7002", "V2.0.0")
SDK_SLOTS = 9


# Login [9.1, 9.2]


def will_topic(serial: str, first: bool) -> str:
    """Zero bytes up to 128; str and bytes are equally long because a serial is ASCII."""
    return f"/Basic/pu2cenplt/{serial}/{'first' if first else 'break'}connect".ljust(WILL_TOPIC_LENGTH, "\0")


def full_record(
    serial: str, dev_id: str, lbs_domain: str, *, g1: bool = False, hub: bool = False, **about: str
) -> bytes:
    """`about` may name FirmwareVersion, DevType, DevTypeDisplay and MAC. G1 has two members of its own."""
    slots = [*(SDK_VERSIONS_G1 if g1 else SDK_VERSIONS), *([SDK_VERSION_HUB] if hub else [])]
    slots += [("0", "")] * (SDK_SLOTS - len(slots))
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


# Envelope [9.6]


class Message(NamedTuple):
    topic: str
    general: dict[str, Any]
    application: bytes

    @property
    def text(self) -> str:
        try:
            return self.application.decode()
        except ValueError as error:
            raise ProtocolError(f"the message on {self.topic} is not text: {error}") from error


class Closed(ProtocolError):
    """The DAS has closed the connection."""

    def __init__(self) -> None:
        super().__init__("the DAS closed the connection")


def seal(session_key: bytes, general: dict[str, Any], application: str | bytes) -> bytes:
    head = _compact(general).encode()
    body = application.encode() if isinstance(application, str) else application
    return cbc_seal(session_key, len(head).to_bytes(2, "big") + head + body)


def unseal(session_key: bytes, payload: bytes | bytearray) -> tuple[dict[str, Any], bytes]:
    plaintext = cbc_open(session_key, bytes(payload))
    end = 2 + int.from_bytes(plaintext[:2], "big")
    if len(plaintext) < max(end, 2):
        raise ProtocolError("general payload is longer than the message")
    try:
        general = json.loads(plaintext[2:end])
    except ValueError as error:
        raise ProtocolError(f"general payload is not JSON: {error}") from error
    if not isinstance(general, dict):
        raise ProtocolError("general payload is not a JSON object")
    return general, plaintext[end:]


def filters(serial: str) -> list[str]:
    return [f"/iot/{serial}/#", f"/{serial}/#"]


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
        on_ping: Callable[[int], None] = lambda interval: None,
        keep_alive: int = KEEP_ALIVE,
        g1: bool = False,
        client_id: str | None = None,
    ) -> None:
        """Without a client id it is empty, and a password is sent [9.1]. `on_ping` is told of every PINGREQ that was
        due, with the interval that has passed."""
        self._key = session_key
        self._g1 = g1
        self._on_ping = on_ping
        self._interval = self._pushed = keep_alive
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
            self._mqtt.connect(host, port, self._interval)
        except OSError as error:
            raise ProtocolError(f"DAS {host}:{port}: {error}") from error
        self._heard = time.monotonic()
        self._next_ping = self._heard + self._interval
        self.wait(lambda: self._mqtt.connack is not None, "CONNACK")
        code = self._mqtt.connack
        assert code is not None
        return code

    def subscribe(self, topic_filter: str) -> int:
        """The granted QoS."""
        _, mid = self._mqtt.subscribe(topic_filter, qos=1)
        self.wait(lambda: mid in self._granted, f"SUBACK for {topic_filter}")
        granted = self._granted.pop(mid).value
        if granted > 2:
            raise ProtocolError(f"subscription to {topic_filter} refused with {granted}")
        return granted

    def unsubscribe(self, topic_filter: str) -> None:
        _, mid = self._mqtt.unsubscribe(topic_filter)
        self.wait(lambda: mid in self._acknowledged, f"UNSUBACK for {topic_filter}")

    def publish(self, topic: str, application: str | bytes, seq: int) -> tuple[int, bool]:
        """Packet id and whether its PUBACK came in time: a missing one has no other effect on a live link [9.5]."""
        payload = seal(self._key, self._general(seq), application)
        mid = self._mqtt.publish(topic, payload, qos=1, retain=True).mid
        return mid, self._turn(lambda: mid in self._acknowledged, READ_TIMEOUT)

    def send(self, topic: str, application: str, seq: int, qos: int = 1) -> None:
        """The same without waiting: for what is said while something else is waited for."""
        self._mqtt.publish(topic, seal(self._key, self._general(seq), application), qos=qos, retain=True)

    def command(
        self, topic: str, version: str, application: str, seq: int, *, qos: int = 0, answers: bool = False
    ) -> None:
        """A request of the older form, or the response to one [9.6, 9.7]."""
        general = {"CmdVer": version, "Seq": seq, "MsgType": 2 if answers else 1}
        self._mqtt.publish(topic, seal(self._key, general, application), qos=qos, retain=True)

    def _general(self, seq: int) -> dict[str, Any]:
        return {"CmdVer": "3.0", "Seq": seq, "MsgType": 1} if self._g1 else {"Seq": seq}

    def ping(self) -> None:
        self._send_ping()
        self.wait(lambda: self._mqtt.pong, "PINGRESP")

    def _send_ping(self) -> int:
        """The interval that is over. One that was pushed counts from here on [9.9, 10.5]."""
        over, self._interval = self._interval, self._pushed
        self._next_ping = time.monotonic() + self._interval
        self._mqtt.ping()
        return over

    def push_keep_alive(self, seconds: int) -> None:
        self._pushed = seconds

    def hold(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Stays connected; True when `until` holds before the time is over."""
        return self._turn(until, seconds)

    def fall_silent(self, seconds: float) -> bool:
        """Neither pings nor says anything more; True when the DAS closes the connection in this time."""
        self._next_ping = float("inf")
        try:
            self._turn(lambda: False, seconds)
        except Closed:
            return True
        return False

    def disconnect(self) -> None:
        if self._mqtt.disconnect() != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise ProtocolError("the connection was lost before DISCONNECT")

    def drop(self) -> None:
        stream = self._mqtt.socket()
        if stream is not None:
            stream.close()

    def wait(self, done: Callable[[], bool], what: str) -> None:
        if not self._turn(done, READ_TIMEOUT):
            raise ProtocolError(f"no {what} within {READ_TIMEOUT:g} s")

    def _turn(self, done: Callable[[], bool], seconds: float) -> bool:
        """Moves packets until `done`; False when the time is over. Pings on the way [9.9]."""
        deadline = time.monotonic() + seconds
        while not done():
            stream = self._mqtt.socket()
            if stream is None:
                raise Closed
            now = time.monotonic()
            if now >= deadline:
                return False
            silence = 2 * self._interval
            if now >= self._heard + silence:
                raise ProtocolError(f"the DAS was silent for {silence} s")
            if now >= self._next_ping:
                self._on_ping(self._send_ping())
            wake = min(deadline, self._next_ping, self._heard + silence)
            readable, writable, _ = select.select(
                [stream], [stream] if self._mqtt.want_write() else [], [], max(0.0, wake - now)
            )
            if readable:
                self._heard = time.monotonic()
                self._mqtt.loop_read()
            if writable:
                self._mqtt.loop_write()
        return True
