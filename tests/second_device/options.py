"""The command line of the second device."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import das
import downlinks
import osap
import state

UPPER = "upper"
LOWER = "lower"


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A second, independent OSAP device.")
    parser.add_argument("--lbs", required=True, type=address, metavar="HOST:PORT")
    parser.add_argument("--serial", required=True)
    parser.add_argument("--code", required=True, help="verification code")
    parser.add_argument(
        "--generation", choices=osap.GENERATIONS, default=osap.G2, help="how it authenticates (default: g2)"
    )
    parser.add_argument("--state", type=Path, help="JSON file with dev_id and master_key, read and written")
    parser.add_argument("--wrong-code", action="store_true", help="authenticate with another code than --code")
    parser.add_argument(
        "--case", choices=(UPPER, LOWER), default=UPPER, help="which D1 it computes first, for itself and its children"
    )
    parser.add_argument("--login", choices=(das.FULL, das.LIGHT), default=das.FULL)
    parser.add_argument("--keep-alive", type=int, default=das.KEEP_ALIVE, metavar="SECONDS")

    says = parser.add_argument_group("what it says")
    says.add_argument("--event", type=json.loads, help="JSON object to report")
    says.add_argument("--path", help="RESOURCE/INDEX/AREA/NAME of the event")
    says.add_argument("--count", type=int, default=1, help="how many times to report the event")
    says.add_argument("--no-uuid", dest="basic", action="store_false", help="send the event without `basic`")
    says.add_argument("--as", dest="sub", metavar="CHILD", help="report the event, or pass the message, for this child")
    says.add_argument("--pass", dest="passed", type=passed, metavar="PATH=TYPE:HEX", help="pass a message through")
    says.add_argument("--inform", type=pair, metavar="MODULE=VERSION", help="tell of its firmware")
    says.add_argument("--progress", type=progress, metavar="MODULE=STATUS:PERCENT", help="tell of an update")
    says.add_argument("--notice", action="store_true", help="announce that it leaves, as devices of g1 always do")

    asks = parser.add_argument_group("what it asks")
    asks.add_argument("--owner", action="store_true", help="ask who owns it")
    asks.add_argument("--query", metavar="PATH", help="ask for the value of an attribute")
    asks.add_argument("--picture", type=Path, metavar="FILE", help="ask where to put a picture, and put it there")
    asks.add_argument("--picture-type", default="image/png", metavar="TYPE", help="what it says the picture is")
    asks.add_argument("--call", type=valued, metavar="PATH=JSON", help="ask the platform for an operation")

    does = parser.add_argument_group("what it does when it is told")
    does.add_argument(
        "--attribute",
        type=valued,
        action="append",
        default=[],
        metavar="PATH=JSON",
        help="an attribute that can be read and set; may be repeated",
    )
    does.add_argument("--through", choices=(downlinks.SHADOW, downlinks.MODEL), default=downlinks.SHADOW)
    does.add_argument(
        "--answer",
        choices=("echo", "model", "fail", "twice", "astray", "none"),
        help="carry out operations, and answer so",
    )

    does.add_argument("--present", action="store_true", help="somebody is there when that is asked for")
    does.add_argument(
        "--upgrade", choices=(downlinks.ACCEPT, downlinks.REFUSE), help="answer so when other firmware is to be fetched"
    )

    hub = parser.add_argument_group("a hub")
    hub.add_argument(
        "--child", type=pair, action="append", default=[], metavar="SERIAL=CODE", help="bring a child; may be repeated"
    )
    hub.add_argument("--lose", metavar="CHILD", help="tell at the end that this child is out of reach")
    hub.add_argument("--forget", metavar="CHILD", help="tell at the end that this child is none any more")

    parser.add_argument("--hold", type=float, default=0.0, metavar="SECONDS", help="stay connected")
    parser.add_argument("--disconnect", choices=("orderly", "drop"), default="orderly")
    arguments = parser.parse_args(argv)
    try:
        arguments.dev_id, arguments.master_key = state.load(arguments.state)
    except (OSError, ValueError, AttributeError, TypeError) as error:
        parser.error(f"--state {arguments.state}: {error}")
    if problem := _problem(arguments):
        parser.error(problem)
    if arguments.wrong_code:
        arguments.code = ("A" if arguments.code[0] != "A" else "B") + arguments.code[1:]
    return arguments


def _problem(arguments: argparse.Namespace) -> str | None:
    serial, code, event, path = arguments.serial, arguments.code, arguments.event, arguments.path
    children = {child for child, _ in arguments.child}
    if not (serial.isascii() and serial.isprintable() and 1 <= len(serial) <= 71 and not set("/+#") & set(serial)):
        return "--serial: 1 to 71 printable ASCII characters without / + #"
    if not (code.isascii() and 1 <= len(code) <= 47):
        return "--code: 1 to 47 ASCII characters"
    if (event is None) != (path is None):
        return "--event and --path belong together"
    if event is not None and not isinstance(event, dict):
        return "--event: a JSON object"
    if path is not None and not _is_path(path):
        return "--path: RESOURCE/INDEX/AREA/NAME"
    if arguments.query is not None and not _is_path(arguments.query):
        return "--query: RESOURCE/INDEX/AREA/NAME"
    if arguments.count < 1:
        return "--count: at least 1"
    if not 1 <= arguments.keep_alive <= 0xFFFF:
        return "--keep-alive: 1 to 65535 seconds"
    if any(child is not None and child not in children for child in (arguments.sub, arguments.lose, arguments.forget)):
        return "--as, --lose and --forget name a --child"
    if arguments.wrong_code and arguments.master_key is not None:
        return "--wrong-code: the state holds a master key, so no code would be used"
    return None


def _is_path(text: str) -> bool:
    return len(text.split("/")) == 4 and all(text.split("/")) and not set("+#") & set(text)


def address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host:
        raise argparse.ArgumentTypeError("HOST:PORT")
    return host, int(port)


def pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise argparse.ArgumentTypeError("NAME=VALUE")
    return name, value


def valued(text: str) -> tuple[str, Any]:
    path, equals, value = text.partition("=")
    if not equals or not _is_path(path):
        raise argparse.ArgumentTypeError("RESOURCE/INDEX/AREA/NAME=JSON")
    return path, json.loads(value)


def passed(text: str) -> tuple[str, str, bytes]:
    path, value = pair(text)
    media_type, _, digits = value.rpartition(":")
    if not _is_path(path) or not (media_type.isascii() and 1 <= len(media_type) <= 127):
        raise argparse.ArgumentTypeError("RESOURCE/INDEX/AREA/NAME=TYPE/SUBTYPE:HEX")
    return path, media_type, bytes.fromhex(digits)


def progress(text: str) -> tuple[str, int, int]:
    module, value = pair(text)
    status, _, percent = value.partition(":")
    return module, int(status), int(percent)
