"""What the device does with what the platform sends [10]."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import channels
import das
import osap
from steps import emit

ACCEPT = "accept"
REFUSE = "refuse"

SHADOW = "shadow"
MODEL = "model"

DONE = {"code": 0}
DONE_MODEL = {"status": 200, "code": "0x0", "errorMsg": "success"}
FAILED = {"code": -1}


class Downlinks:
    """Attributes and operations, and what was heard: answers, verdicts on children, orders."""

    def __init__(
        self,
        serial: str,
        *,
        answer: str | None,
        attributes: dict[str, Any],
        through: str,
        is_present: bool,
        upgrade: str | None,
        g1: bool,
    ) -> None:
        self.attributes = attributes
        # Answers to questions of our own, by topic and Seq.
        self.answers: dict[tuple[str, int], str] = {}
        self.verdicts: dict[str, bool] = {}
        self.redirect: str | None = None
        self.sent_away = False
        self.keep_alive = das.KEEP_ALIVE
        self._serial = serial
        self._answer = answer
        self._through = through
        self._is_present = is_present
        self._upgrade = upgrade
        self._g1 = g1
        self._risks: dict[int, set[int]] = {}
        self._versions: dict[str, int] = {}

    def hear(self, link: das.Link, message: das.Message, next_seq: Callable[[], int]) -> None:
        _tell(message)
        if (delivered := channels.pass_message(message.topic)) is not None:
            media_type, content = channels.pass_content(message.application)
            emit("delivered", sub=delivered[0], path=delivered[1], media_type=media_type, hex=content.hex())
        elif (shadow := channels.shadow_message(message.topic)) is not None:
            self._synchronise(link, shadow, message, next_seq)
        elif (model := channels.model_message(message.topic)) is not None:
            self._model(link, model, message, next_seq)
        elif channels.is_storage_reply(message.topic):
            self.answers[message.topic, message.general["Seq"]] = message.text
        elif channels.is_upgrade(message.topic):
            self._fetch(link, message)
        elif (command := channels.command_of(message.topic)) is not None:
            self._obey(link, command, message, next_seq)

    # Thing model [10.1]

    def _model(self, link: das.Link, model: channels.Model, message: das.Message, next_seq: Callable[[], int]) -> None:
        match model.method, model.message:
            case "service", "operate":
                self._operate(link, model, message)
            case "attribute", "set":
                self._set(link, model, message, next_seq)
            case _, ("operate_reply" | "query_reply"):
                self.answers[message.topic, message.general["Seq"]] = message.text

    def _operate(self, link: das.Link, model: channels.Model, message: das.Message) -> None:
        if self._answer is None:
            return
        given = channels.value_of(json.loads(message.text)) if message.application else None
        seq, topic = message.general["Seq"], self._reply_to(model)
        done = DONE if given is None else {**DONE, "data": given}
        answers: dict[str, list[tuple[str, int, dict[str, Any]]]] = {
            "echo": [(topic, seq, done)],
            "model": [(topic, seq, {**DONE_MODEL, "data": given})],
            "fail": [(topic, seq, FAILED)],
            "twice": [(topic, seq, done), (topic, seq, {"code": 9})],
            "astray": [(topic, seq + 1, {"code": 9}), (topic + "X", seq, {"code": 9}), (topic, seq, done)],
            "none": [],
        }
        chosen = answers[self._answer]
        for where, number, answer in chosen:
            link.send(where, channels.compact(answer), number)
        emit("operation", operation=model.path, sub=model.sub, input=given, answers=len(chosen))

    def _set(self, link: das.Link, model: channels.Model, message: das.Message, next_seq: Callable[[], int]) -> None:
        known, value = model.path in self.attributes, channels.value_of(json.loads(message.text))
        done = DONE_MODEL if self._answer == MODEL else DONE
        link.send(self._reply_to(model), channels.compact(done if known else FAILED), message.general["Seq"])
        if known:
            self.attributes[model.path] = value
            link.send(*self.report_of(model.path), next_seq())
        emit("set", path=model.path, value=value, known=known, by="model")

    def _reply_to(self, model: channels.Model) -> str:
        """A reply goes to the topic of its request, up instead of down [9.8]."""
        return channels.model_topic(self._serial, model._replace(message=f"{model.message}_reply"))

    # Attributes [10.1, 10.2]

    def report_of(self, path: str) -> tuple[str, str]:
        """Topic and body of a report; every one of the shadow counts as a change."""
        if self._through == MODEL:
            about = channels.Model(channels.GLOBAL, path, "attribute", "report")
            return channels.model_topic(self._serial, about), channels.value_body(self.attributes[path])
        self._versions[path] = self._versions.get(path, 0) + 1
        about = channels.Shadow(channels.GLOBAL, channels.place_of(path), "report")
        body = channels.shadow_report(path, self.attributes[path], self._versions[path])
        return channels.shadow_topic(self._serial, about), body

    def _synchronise(
        self, link: das.Link, shadow: channels.Shadow, message: das.Message, next_seq: Callable[[], int]
    ) -> None:
        for path, value in channels.shadow_wishes(shadow.place, json.loads(message.text)):
            known = path in self.attributes
            if shadow.message == "set":
                topic = channels.shadow_topic(self._serial, shadow._replace(message="set_reply"))
                link.send(topic, channels.shadow_set_reply(0 if known else -1), message.general["Seq"])
            if known:
                self.attributes[path] = value
                link.send(*self.report_of(path), next_seq())
            emit("set", path=path, value=value, known=known, by=shadow.message)

    # Firmware update [10.3]

    def _fetch(self, link: das.Link, message: das.Message) -> None:
        """Says whether it will; what it would fetch is shown."""
        if self._upgrade is None:
            return
        files, accepted = channels.upgrade_files(message.text), self._upgrade == ACCEPT
        topic = channels.module_topic(self._serial, channels.UPGRADE, "operate_reply")
        link.send(topic, channels.upgrade_reply(accepted), message.general["Seq"], qos=0)
        emit("upgrade", accepted=accepted, files=files)

    # Commands of the older form [10.4 to 10.6]

    def send_command(
        self, link: das.Link, command: channels.Command, body: str, seq: int, *, qos: int = 0, answers: bool = False
    ) -> None:
        """Unless it is on the risk list: then nothing tells the platform [10.5]."""
        if channels.is_forbidden(self._risks, command):
            emit("withheld", command=channels.command_topic(command))
            return
        version = channels.command_version(command[0], g1=self._g1)
        link.command(channels.command_topic(command), version, body, seq, qos=qos, answers=answers)

    def _obey(
        self, link: das.Link, command: channels.Command, message: das.Message, next_seq: Callable[[], int]
    ) -> None:
        seq = message.general["Seq"]
        if command == channels.KEEP_ALIVE:
            self.keep_alive = channels.pushed_keep_alive(message.text)
            link.push_keep_alive(self.keep_alive)
            emit("keep_alive", seconds=self.keep_alive)
        elif command == channels.RISK_LIST:
            self._risks = channels.risk_list(message.text)
            emit("risk_list", domains={str(domain): sorted(numbers) for domain, numbers in self._risks.items()})
        elif command == channels.BINDING_CHANGED:
            emit("binding", user=channels.new_owner(message.text))
            # The only one that is answered under its own number [9.8].
            self.send_command(link, channels.BINDING_CHANGED, channels.binding_answer(), seq, answers=True)
        elif command == channels.CHALLENGE:
            token, period = channels.challenge_of(message.text)
            emit("challenge", token=token, seconds=period)
            self.send_command(link, channels.CHALLENGE_ANSWER, channels.compact({"result": 0}), seq, answers=True)
            if self._is_present:
                self.send_command(link, channels.PRESENCE, channels.presence_body(token), next_seq())
        elif command == channels.PRESENCE_ANSWER:
            emit("presence_known", answers=seq)
        elif command == channels.FORCED_OFFLINE:
            self.sent_away = True
        elif command in channels.REDIRECTS:
            self.redirect = channels.redirect_host(message.text)
        elif command == channels.CHILD_VERDICT:
            verdict = json.loads(message.text)
            self.verdicts[verdict["childserial"]] = verdict["result"] == 0
        else:
            self.answers[message.topic, seq] = message.text


def _tell(message: das.Message) -> None:
    try:
        application: dict[str, str] = {"application": message.text}
    except osap.ProtocolError:
        application = {"base64": base64.b64encode(message.application).decode()}
    emit("downlink", topic=message.topic, general=message.general, **application)
