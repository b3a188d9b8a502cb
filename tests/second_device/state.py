"""The state file: DevID and master key, nothing else [2]."""

from __future__ import annotations

import json
import os
from pathlib import Path

import osap


def load(path: Path | None) -> tuple[str | None, bytes | None]:
    if path is None or not path.exists():
        return None, None
    state = json.loads(path.read_text())
    dev_id, key = state.get("dev_id"), state.get("master_key")
    if dev_id is not None and len(dev_id) != 32:
        raise ValueError("dev_id is not 32 characters long")
    if key is not None and (dev_id is None or len(key) != 16):
        raise ValueError("master_key is not 16 characters long, or there is no dev_id with it")
    return dev_id, None if key is None else key.encode()


def save(path: Path | None, session: osap.Session) -> None:
    if path is None:
        return
    fresh = path.with_name(path.name + ".new")
    with open(fresh, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as out:
        json.dump({"dev_id": session.dev_id, "master_key": session.master_key.decode()}, out)
    fresh.replace(path)
