"""What the device tells of itself: one JSON object a line."""

from __future__ import annotations

import json
from typing import Any


def emit(step: str, **members: Any) -> None:
    print(json.dumps({"step": step, **members}), flush=True)
