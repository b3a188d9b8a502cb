"""A second OSAP device: authenticates at the LBS, logs in to the DAS, reports events, leaves.

Prints one JSON object per step. Exits 0 when everything asked for happened, 1 when the peer broke the
protocol or kept silent, 2 on wrong usage, 3 when it refused. See README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import das
import osap

WRONG_CODE_RESULT = 1
# The real client has no limit [9.3]; a test wants an end.
UNKNOWN_SESSION_LIMIT = 3


def emit(step: str, **members: Any) -> None:
    print(json.dumps({"step": step, **members}), flush=True)


class Device:
    def __init__(self, arguments: argparse.Namespace) -> None:
        self._lbs: tuple[str, int] = arguments.lbs
        self._serial: str = arguments.serial
        self._code: str = arguments.code
        self._generation: str = arguments.generation
        self._state: Path | None = arguments.state
        self._dev_id: str | None = arguments.dev_id
        self._master_key: bytes | None = arguments.master_key
        self._logged_in_before = False
        self._session: osap.Session
        self._link: das.Link
        self._seq = 0
        self._answer: str | None = arguments.answer
        self._attributes: dict[str, Any] = dict(arguments.attribute)
        self._versions: dict[str, int] = {}

    @property
    def run(self) -> str:
        """Which run comes next [5.12]."""
        if self._dev_id is None:
            return "first"
        return "ecdh_refresh" if self._master_key is None else "plain_refresh"

    def authenticate(self) -> None:
        """One LBS run and, only if it is complete, the state file."""
        run, case = self.run, None
        if self._dev_id is not None and self._master_key is not None:
            steps = osap.plain_refresh(self._serial, self._dev_id, self._master_key)
            session = osap.drive(*self._lbs, steps)
        else:
            session, case = self._authenticate_by_code()
        self._session = session
        if (self._dev_id, self._master_key) != (session.dev_id, session.master_key):
            self._dev_id, self._master_key = session.dev_id, session.master_key
            save_state(self._state, session)
        emit("authenticated", run=run, case=case, dev_id=session.dev_id)
        emit("das", **vars(session.das))

    def _authenticate_by_code(self) -> tuple[osap.Session, str]:
        for lower_case in (False, True):
            case = "lower" if lower_case else "upper"
            steps = self._by_code(lower_case)
            try:
                return osap.drive(*self._lbs, steps), case
            except osap.Refused as refused:
                if lower_case or refused.code != WRONG_CODE_RESULT:
                    raise
                emit("retry", code=refused.code, at=refused.at, case="lower")
        raise AssertionError("the second attempt returns or raises")

    def _by_code(self, lower_case: bool) -> osap.Run:
        serial, code, dev_id = self._serial, self._code, self._dev_id
        if self._generation == osap.G0:
            return osap.authenticate_g0(serial, code, lower_case=lower_case, dev_id=dev_id)
        return osap.authenticate(serial, code, generation=self._generation, lower_case=lower_case, dev_id=dev_id)

    def login(self, kind: str) -> None:
        """Until the DAS accepts: 11 sends the device back to the LBS, 12 to the light login [9.3]."""
        asked, unknown = kind, 0
        while True:
            code = self._connect(kind)
            if code == das.ACCEPTED:
                break
            unknown += code == das.SESSION_UNKNOWN
            if code == das.SESSION_EXISTS and kind == das.FULL:
                kind = das.LIGHT
            elif code == das.SESSION_UNKNOWN and asked == das.FULL and unknown < UNKNOWN_SESSION_LIMIT:
                self.authenticate()
                kind = das.FULL
            else:
                raise osap.Refused("connack", code)
        self._logged_in_before = True
        # A light login subscribes only where it stands in for a full one [9.3, 9.4].
        if asked == das.FULL:
            for topic_filter in das.filters(self._serial):
                emit("subscribed", filter=topic_filter, granted=self._link.subscribe(topic_filter))

    def _connect(self, kind: str) -> int:
        session, first = self._session, not self._logged_in_before
        if kind == das.FULL:
            g1 = self._generation == osap.G1
            record = das.full_record(self._serial, session.dev_id, self._lbs[0], g1=g1)
        else:
            record = das.short_record(self._serial, session.dev_id)
        self._link = das.Link(
            self._serial,
            session.session_key,
            login=kind,
            first=first,
            record=record,
            on_downlink=self._heard,
            # The clients of G0 name themselves and send no password [7].
            client_id=session.dev_id if self._generation == osap.G0 else None,
        )
        code = self._link.connect(session.das.address, session.das.port)
        emit("connack", login=kind, first=first, code=code)
        return code

    def _heard(self, message: das.Message) -> None:
        emit("downlink", **message._asdict())
        if (shadow := das.shadow_message(message.topic)) is not None:
            self._synchronise(*shadow, message)
            return
        operation = das.operation_of(message.topic)
        if operation is None or self._answer is None:
            return
        body = json.loads(message.application) if message.application else {}
        given = body.get("data")
        given = given["Value"] if isinstance(given, dict) and "Value" in given else given
        seq, topic = message.general["Seq"], das.reply_topic(message.topic)
        done = {"code": 0} if given is None else {"code": 0, "data": given}
        model = {"status": 200, "code": "0x0", "errorMsg": "success", "data": given}
        answers = {
            "echo": [(topic, seq, done)],
            "model": [(topic, seq, model)],
            "fail": [(topic, seq, {"code": -1})],
            "twice": [(topic, seq, done), (topic, seq, {"code": 9})],
            "astray": [(topic, seq + 1, {"code": 9}), (topic + "X", seq, {"code": 9}), (topic, seq, done)],
            "none": [],
        }[self._answer]
        for topic, seq, answer in answers:
            self._link.send(topic, json.dumps(answer, separators=(",", ":"), ensure_ascii=False), seq)
        emit("operation", operation=operation, input=given, answers=len(answers))

    # State synchronisation [10.2]

    def report_attributes(self) -> None:
        """All reports first, then one query for each resource [10.2]."""
        for path in self._attributes:
            topic, body = self._report_of(path)
            _, acked = self._link.publish(topic, body, self._next_seq())
            emit("attribute", path=path, acked=acked)
        for place in sorted({das_place(path) for path in self._attributes}):
            query = json.dumps({"method": "query", "windowsize": 16256}, separators=(",", ":"))
            _, acked = self._link.publish(das.shadow_topic(self._serial, place, "query"), query, self._next_seq())
            emit("query", place=place, acked=acked)

    def _report_of(self, path: str) -> tuple[str, str]:
        _, _, area, name = path.split("/")
        self._versions[path] = self._versions.get(path, 0) + 1
        body = das.shadow_report(area, name, self._attributes[path], self._versions[path])
        return das.shadow_topic(self._serial, das_place(path), "report"), body

    def _synchronise(self, place: str, message: str, downlink: das.Message) -> None:
        state = json.loads(downlink.application)["state"]
        wanted = state["desired"] if message == "query_reply" else [state["desired"]]
        for desired in wanted:
            index, _, resource = place.partition("-")
            path = f"{resource}/{index}/{desired['domain']}/{desired['identifier']}"
            known = path in self._attributes
            if message == "set":
                answer = {"method": "set_reply", "payload": {"code": 0 if known else -1}, "timestamp": 0}
                topic = das.shadow_topic(self._serial, place, "set_reply")
                self._link.send(topic, json.dumps(answer, separators=(",", ":")), downlink.general["Seq"])
            if known:
                self._attributes[path] = desired["value"]
                self._link.send(*self._report_of(path), self._next_seq())
            emit("set", path=path, value=desired["value"], known=known, by=message)

    def _next_seq(self) -> int:
        self._seq += 1
        return self._seq

    def report(self, path: str, event: dict[str, Any], basic: bool) -> bool:
        event = das.with_basic(event) if basic else event
        self._seq += 1
        application = json.dumps(event, separators=(",", ":"), ensure_ascii=False)
        mid, acked = self._link.publish(das.event_topic(self._serial, path), application, self._seq)
        inner = event.get("basic")
        uuid = inner.get("UUID") if isinstance(inner, dict) else None
        emit("event", uuid=uuid, acked=acked, mid=mid, seq=self._seq)
        return acked

    def ping(self) -> None:
        self._link.ping()
        emit("ping", answered=True)

    def hold(self, seconds: float) -> None:
        self._link.hold(seconds)
        emit("held", seconds=seconds)

    def leave(self, how: str) -> None:
        if how == "orderly":
            for topic_filter in das.filters(self._serial):
                self._link.unsubscribe(topic_filter)
                emit("unsubscribed", filter=topic_filter)
            self._link.disconnect()
        else:
            self._link.drop()
        emit("disconnected", how=how)


def play(arguments: argparse.Namespace) -> bool:
    device = Device(arguments)
    device.authenticate()
    device.login(das.FULL)
    if arguments.login == das.LIGHT:
        # A light login only ever follows a lost connection or a 12 [9.3, 9.9].
        device.leave("drop")
        device.login(das.LIGHT)
    complete = True
    if arguments.attribute:
        device.report_attributes()
    if arguments.event is not None:
        for _ in range(arguments.count):
            complete &= device.report(arguments.path, arguments.event, arguments.basic)
    device.ping()
    if arguments.hold > 0:
        device.hold(arguments.hold)
    device.leave(arguments.disconnect)
    return complete


def main() -> int:
    arguments = parse_arguments()
    try:
        return 0 if play(arguments) else 1
    except osap.Refused as refused:
        more = {} if refused.protocol_type is None else {"protocol_type": refused.protocol_type}
        emit("refused", code=refused.code, at=refused.at, **more)
        return 3
    except osap.ProtocolError as error:
        emit("failed", reason=str(error))
        return 1


# State file: DevID and master key, nothing else [2]


def load_state(path: Path | None) -> tuple[str | None, bytes | None]:
    if path is None or not path.exists():
        return None, None
    state = json.loads(path.read_text())
    dev_id, key = state.get("dev_id"), state.get("master_key")
    if dev_id is not None and len(dev_id) != 32:
        raise ValueError("dev_id is not 32 characters long")
    if key is not None and (dev_id is None or len(key) != 16):
        raise ValueError("master_key is not 16 characters long, or there is no dev_id with it")
    return dev_id, None if key is None else key.encode()


def save_state(path: Path | None, session: osap.Session) -> None:
    if path is None:
        return
    fresh = path.with_name(path.name + ".new")
    with open(fresh, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as out:
        json.dump({"dev_id": session.dev_id, "master_key": session.master_key.decode()}, out)
    fresh.replace(path)


# Command line


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A second, independent OSAP device.")
    parser.add_argument("--lbs", required=True, type=address, metavar="HOST:PORT")
    parser.add_argument("--serial", required=True)
    parser.add_argument("--code", required=True, help="verification code")
    parser.add_argument(
        "--generation", choices=osap.GENERATIONS, default=osap.G2, help="how it authenticates (default: g2)"
    )
    parser.add_argument("--state", type=Path, help="JSON file with dev_id and master_key, read and written")
    parser.add_argument("--event", type=json.loads, help="JSON object to report")
    parser.add_argument("--path", help="RESOURCE/INDEX/AREA/NAME of the event")
    parser.add_argument("--count", type=int, default=1, help="how many times to report the event")
    parser.add_argument("--no-uuid", dest="basic", action="store_false", help="send the event without `basic`")
    parser.add_argument("--login", choices=(das.FULL, das.LIGHT), default=das.FULL)
    parser.add_argument("--wrong-code", action="store_true", help="authenticate with another code than --code")
    parser.add_argument(
        "--attribute",
        type=attribute,
        action="append",
        default=[],
        metavar="PATH=JSON",
        help="an attribute that can be read and set; may be repeated",
    )
    parser.add_argument(
        "--answer",
        choices=("echo", "model", "fail", "twice", "astray", "none"),
        help="carry out operations, and answer so",
    )
    parser.add_argument("--hold", type=float, default=0.0, metavar="SECONDS", help="stay connected")
    parser.add_argument("--disconnect", choices=("orderly", "drop"), default="orderly")
    arguments = parser.parse_args(argv)
    try:
        arguments.dev_id, arguments.master_key = load_state(arguments.state)
    except (OSError, ValueError, AttributeError, TypeError) as error:
        parser.error(f"--state {arguments.state}: {error}")
    if problem := _problem(arguments):
        parser.error(problem)
    if arguments.wrong_code:
        arguments.code = ("A" if arguments.code[0] != "A" else "B") + arguments.code[1:]
    return arguments


def _problem(arguments: argparse.Namespace) -> str | None:
    serial, code, event, path = arguments.serial, arguments.code, arguments.event, arguments.path
    if not (serial.isascii() and serial.isprintable() and 1 <= len(serial) <= 71 and not set("/+#") & set(serial)):
        return "--serial: 1 to 71 printable ASCII characters without / + #"
    if not (code.isascii() and 1 <= len(code) <= 47):
        return "--code: 1 to 47 ASCII characters"
    if (event is None) != (path is None):
        return "--event and --path belong together"
    if event is not None and not isinstance(event, dict):
        return "--event: a JSON object"
    if path is not None and (len(path.split("/")) != 4 or not all(path.split("/")) or set("+#") & set(path)):
        return "--path: RESOURCE/INDEX/AREA/NAME"
    if arguments.count < 1:
        return "--count: at least 1"
    if arguments.wrong_code and arguments.master_key is not None:
        return "--wrong-code: the state holds a master key, so no code would be used"
    return None


def das_place(path: str) -> str:
    resource, index, _, _ = path.split("/")
    return f"{index}-{resource}"


def attribute(text: str) -> tuple[str, Any]:
    path, equals, value = text.partition("=")
    if not equals or path.count("/") != 3:
        raise argparse.ArgumentTypeError("RESOURCE/INDEX/AREA/NAME=JSON")
    return path, json.loads(value)


def address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host:
        raise argparse.ArgumentTypeError("HOST:PORT")
    return host, int(port)


if __name__ == "__main__":
    sys.exit(main())
