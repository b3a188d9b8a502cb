"""A second OSAP device: authenticates at the LBS, logs in to the DAS, says and does what it is asked to, leaves.

Prints one JSON object per step. Exits 0 when everything asked for happened, 1 when the peer broke the
protocol or kept silent, 2 on wrong usage, 3 when it refused. See README.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import channels
import das
import options
import osap
import state
from channels import GLOBAL
from downlinks import MODEL, Downlinks
from steps import emit

WRONG_CODE_RESULT = 1
# The real client has no limit [9.3]; a test wants an end.
UNKNOWN_SESSION_LIMIT = 3


class Device:
    def __init__(self, arguments: argparse.Namespace) -> None:
        self._lbs: tuple[str, int] = arguments.lbs
        self._serial: str = arguments.serial
        self._code: str = arguments.code
        self._generation: str = arguments.generation
        self._lower_case: bool = arguments.case == options.LOWER
        self._state: Path | None = arguments.state
        self._dev_id: str | None = arguments.dev_id
        self._master_key: bytes | None = arguments.master_key
        self._through: str = arguments.through
        self._notice: bool = arguments.notice or self._is_g1
        self._codes: dict[str, str] = dict(arguments.child)
        self._children: dict[str, bool] = {}
        self._logged_in_before = False
        self._session: osap.Session
        self._link: das.Link
        self._seq = 0
        self._downlinks = Downlinks(
            self._serial,
            answer=arguments.answer,
            attributes=dict(arguments.attribute),
            through=arguments.through,
            is_present=arguments.present,
            upgrade=arguments.upgrade,
            g1=self._is_g1,
        )
        self._downlinks.keep_alive = arguments.keep_alive

    @property
    def _is_g1(self) -> bool:
        return self._generation == osap.G1

    # The LBS [5 to 7]

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
            state.save(self._state, session)
        emit("authenticated", run=run, case=case, dev_id=session.dev_id)
        emit("das", **vars(session.das))

    def _authenticate_by_code(self) -> tuple[osap.Session, str]:
        for lower_case in (True,) if self._lower_case else (False, True):
            case = options.LOWER if lower_case else options.UPPER
            steps = self._by_code(lower_case)
            try:
                return osap.drive(*self._lbs, steps), case
            except osap.Refused as refused:
                if lower_case or refused.code != WRONG_CODE_RESULT:
                    raise
                emit("retry", code=refused.code, at=refused.at, case=options.LOWER)
        raise AssertionError("the last attempt returns or raises")

    def _by_code(self, lower_case: bool) -> osap.Run:
        serial, code, dev_id = self._serial, self._code, self._dev_id
        if self._generation == osap.G0:
            return osap.authenticate_g0(serial, code, lower_case=lower_case, dev_id=dev_id)
        return osap.authenticate(serial, code, generation=self._generation, lower_case=lower_case, dev_id=dev_id)

    # The way in and out of the DAS [9]

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
            hub = bool(self._codes)
            record = das.full_record(self._serial, session.dev_id, self._lbs[0], g1=self._is_g1, hub=hub)
        else:
            record = das.short_record(self._serial, session.dev_id)
        self._link = das.Link(
            self._serial,
            session.session_key,
            login=kind,
            first=first,
            record=record,
            on_downlink=self._heard,
            on_ping=lambda interval: emit("pinged", after=interval),
            keep_alive=self._downlinks.keep_alive,
            g1=self._is_g1,
            # The clients of G0 name themselves and send no password [7].
            client_id=session.dev_id if self._generation == osap.G0 else None,
        )
        code = self._link.connect(session.das.address, session.das.port)
        emit("connack", login=kind, first=first, code=code)
        return code

    def _heard(self, message: das.Message) -> None:
        self._downlinks.hear(self._link, message, self._next_seq)

    def _next_seq(self) -> int:
        self._seq += 1
        return self._seq

    def ping(self) -> None:
        self._link.ping()
        emit("ping", answered=True)

    def hold(self, seconds: float) -> bool:
        """Stays connected and obeys; False when the device was sent away [10.5]."""
        orders, end = self._downlinks, time.monotonic() + seconds
        while self._link.hold(end - time.monotonic(), lambda: orders.sent_away or orders.redirect is not None):
            if orders.sent_away:
                # It neither says goodbye nor closes the socket.
                emit("sent_away", closed=self._link.fall_silent(osap.READ_TIMEOUT))
                return False
            host, orders.redirect = orders.redirect, None
            assert host is not None
            self._move(host)
        emit("held", seconds=seconds)
        return True

    def _move(self, host: str) -> None:
        """To the LBS at another host, without the master key; where nobody listens there, nothing happens [10.5]."""
        former, key = self._lbs, self._master_key
        if host == former[0]:
            emit("redirect", host=host, moved=False)
            return
        self._lbs, self._master_key = (host, former[1]), None
        try:
            self.authenticate()
        except osap.ProtocolError:
            self._lbs, self._master_key = former, key
            emit("redirect", host=host, moved=False)
            return
        emit("redirect", host=host, moved=True)
        self._say_goodbye()
        self.login(das.FULL)

    def leave(self, how: str) -> None:
        if how == "orderly":
            if self._notice:
                self._command(channels.OFFLINE_NOTICE, channels.who_am_i(self._serial), qos=1)
            self._say_goodbye()
        else:
            self._link.drop()
        emit("disconnected", how=how)

    def _say_goodbye(self) -> None:
        for topic_filter in das.filters(self._serial):
            self._link.unsubscribe(topic_filter)
            emit("unsubscribed", filter=topic_filter)
        self._link.disconnect()

    # What it says [10]

    def report(self, path: str, event: dict[str, Any], *, basic: bool, sub: str) -> bool:
        event = channels.with_basic(event) if basic else event
        seq = self._next_seq()
        mid, acked = self._link.publish(channels.event_topic(self._serial, path, sub), channels.compact(event), seq)
        inner = event.get("basic")
        uuid = inner.get("UUID") if isinstance(inner, dict) else None
        emit("event", uuid=uuid, acked=acked, mid=mid, seq=seq)
        return acked

    def report_attributes(self) -> None:
        """All reports first, then one query for each resource [10.2]; the model library asks nothing."""
        paths = self._downlinks.attributes
        for path in paths:
            _, acked = self._link.publish(*self._downlinks.report_of(path), self._next_seq())
            emit("attribute", path=path, acked=acked)
        if self._through == MODEL:
            return
        for place in sorted({channels.place_of(path) for path in paths}):
            topic = channels.shadow_topic(self._serial, channels.Shadow(GLOBAL, place, "query"))
            self._link.send(topic, channels.shadow_query(), self._next_seq(), qos=0 if self._is_g1 else 1)
            emit("query", place=place)

    def pass_through(self, path: str, media_type: str, content: bytes, *, sub: str) -> bool:
        body = channels.pass_body(media_type, content)
        _, acked = self._link.publish(channels.pass_topic(self._serial, path, sub), body, self._next_seq())
        emit("passed", path=path, acked=acked)
        return acked

    def tell_firmware(self, inform: tuple[str, str] | None, progress: tuple[str, int, int] | None) -> None:
        if inform is not None:
            topic, body = channels.ota_topic(self._serial, "inform"), channels.ota_inform(*inform)
            self._link.send(topic, body, self._next_seq(), 0)
        if progress is not None:
            topic, body = channels.ota_topic(self._serial, "progress"), channels.ota_progress(*progress)
            self._link.send(topic, body, self._next_seq(), 0)

    # What it asks [10.1, 10.4]

    def ask_owner(self) -> None:
        seq = self._command(channels.OWNER_QUERY, channels.who_am_i(self._serial))
        domain, number = channels.OWNER_ANSWER
        result, user = channels.owner_of(self._answer_to(f"/{self._serial}/{domain}/{number}", seq))
        emit("owner", result=result, user=user)

    def ask_value(self, path: str) -> None:
        self._ask(channels.Model(GLOBAL, path, "attribute", "query"), channels.value_body(None))

    def call(self, path: str, given: Any) -> None:
        self._ask(channels.Model(GLOBAL, path, "service", "operate"), channels.compact({"data": given}))

    def send_picture(self, path: Path, media_type: str) -> None:
        """Asks where, puts it there with nothing but what it was told, and says how it went [10.7]."""
        content = path.read_bytes()
        seq = self._next_seq()
        wish = channels.storage_wish(path.name, content, media_type)
        self._link.send(channels.storage_topic(self._serial, "upload/url", "query"), wish, seq)
        reply = self._answer_to(channels.storage_topic(self._serial, "upload/url", "query_reply"), seq)
        granted = json.loads(reply)
        if granted["code"] != 0:
            emit("picture", code=granted["code"], status=None, answer=None)
            return
        [place] = granted["objects"]
        request = urllib.request.Request(place["url"], content, place["headers"], method=place["method"])
        with urllib.request.urlopen(request, timeout=30) as answer:
            status, stored = answer.status, json.load(answer)
        result = channels.storage_result(path.name, 0, stored["sha256"])
        topic = channels.storage_topic(self._serial, "upload/result", "report")
        _, acked = self._link.publish(topic, result, self._next_seq())
        emit("picture", code=0, status=status, answer=stored, acked=acked)

    def _ask(self, about: channels.Model, body: str) -> None:
        seq = self._next_seq()
        self._link.send(channels.model_topic(self._serial, about), body, seq)
        reply = channels.model_topic(self._serial, about._replace(message=f"{about.message}_reply"))
        emit("answered", asked=about.message, path=about.path, body=self._answer_to(reply, seq))

    def _answer_to(self, topic: str, seq: int) -> str:
        self._link.wait(lambda: (topic, seq) in self._downlinks.answers, f"answer on {topic} with Seq {seq}")
        return self._downlinks.answers.pop((topic, seq))

    def _command(self, command: channels.Command, body: str, qos: int = 0) -> int:
        """Its Seq. All but the offline notice go without an acknowledgement [9.5, 9.9]."""
        seq = self._next_seq()
        self._downlinks.send_command(self._link, command, body, seq, qos=qos)
        return seq

    # A hub [10.6]

    def bring_children(self) -> None:
        """Proves each, then lists those who were accepted, twice, and tells that they are there."""
        for serial, code in self._codes.items():
            self._command(channels.CHILD_AUTH, channels.child_proof(serial, code, lower_case=self._lower_case))
            self._link.wait(lambda serial=serial: serial in self._downlinks.verdicts, f"verdict on {serial}")
            accepted = self._downlinks.verdicts.pop(serial)
            emit("child", serial=serial, accepted=accepted)
            if accepted:
                self._children[serial] = True
        for _ in range(2):
            self._command(channels.CHILDREN, channels.child_list(self._children, ever=False))
        if self._children:
            self._command(channels.ONLINE, channels.online_list(self._children))

    def lose(self, child: str) -> None:
        self._children[child] = False
        self._command(channels.ONLINE, channels.online_list({child: False}))
        emit("lost", child=child)

    def forget(self, child: str) -> None:
        self._children.pop(child, None)
        self._command(channels.CHILDREN, channels.child_list(self._children, ever=True))
        emit("forgotten", child=child)


def play(arguments: argparse.Namespace) -> bool:
    device = Device(arguments)
    device.authenticate()
    device.login(das.FULL)
    if arguments.attribute:
        device.report_attributes()
    if arguments.login == das.LIGHT:
        # A light login only ever follows a lost connection or a 12 [9.3, 9.9].
        device.leave("drop")
        device.login(das.LIGHT)
    complete = speak(device, arguments)
    device.ping()
    if arguments.hold > 0 and not device.hold(arguments.hold):
        return complete
    if arguments.lose is not None:
        device.lose(arguments.lose)
    if arguments.forget is not None:
        device.forget(arguments.forget)
    device.leave(arguments.disconnect)
    return complete


def speak(device: Device, arguments: argparse.Namespace) -> bool:
    """Says and asks what it was told to; False when something was not acknowledged."""
    sub, complete = arguments.sub or GLOBAL, True
    if arguments.child:
        device.bring_children()
    device.tell_firmware(arguments.inform, arguments.progress)
    if arguments.owner:
        device.ask_owner()
    if arguments.query is not None:
        device.ask_value(arguments.query)
    if arguments.call is not None:
        device.call(*arguments.call)
    if arguments.picture is not None:
        device.send_picture(arguments.picture, arguments.picture_type)
    if arguments.passed is not None:
        complete &= device.pass_through(*arguments.passed, sub=sub)
    if arguments.event is not None:
        for _ in range(arguments.count):
            complete &= device.report(arguments.path, arguments.event, basic=arguments.basic, sub=sub)
    return complete


def main() -> int:
    arguments = options.parse()
    try:
        return 0 if play(arguments) else 1
    except osap.Refused as refused:
        more = {} if refused.protocol_type is None else {"protocol_type": refused.protocol_type}
        emit("refused", code=refused.code, at=refused.at, **more)
        return 3
    except osap.ProtocolError as error:
        emit("failed", reason=str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main())
