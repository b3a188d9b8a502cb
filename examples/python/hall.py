"""Who is in the hall, and what the cameras see: an application on a client that is generated from the API's own document.

    pip install -r requirements.txt
    openapi-python-client generate --path ../../api/openapi.json --meta none --output-path vestibule_client
    URL=http://127.0.0.1:8080 TOKEN=vst_… python hall.py
"""

import os
import sys

from vestibule_client import AuthenticatedClient
from vestibule_client.api.attributes import set_attribute
from vestibule_client.api.devices import list_devices
from vestibule_client.api.events import list_events
from vestibule_client.api.operations import invoke_operation
from vestibule_client.models import OperationToInvoke, Problem, ValueToSet

IMAGE = {"resource": "Camera", "index": "0", "area": "Image"}


def got(answer):
    """The answer, unless it is a problem: then what is wrong, in words."""
    if answer is None or isinstance(answer, Problem):
        sys.exit(f"{answer.title}: {answer.detail}" if answer else "there was no answer")
    return answer


def main() -> None:
    client = AuthenticatedClient(base_url=os.environ["URL"], token=os.environ["TOKEN"])
    online = got(list_devices.sync(client=client, presence="online", order="serial", limit=1000)).items
    print(f"{len(online)} online")
    for device in online:
        wish = ValueToSet(value=70)
        wished = got(set_attribute.sync(device.serial, name="Brightness", client=client, body=wish, **IMAGE))
        ask = OperationToInvoke(input_={"quality": 80}, deadline_ms=5000)
        end = got(invoke_operation.sync(device.serial, name="Snapshot", client=client, body=ask, **IMAGE))
        print(f"{device.serial}: brightness {wished.desired.outcome}, snapshot {end.outcome}: {end.output}")
    for event in got(list_events.sync(client=client, limit=3)).items:
        print(f"{event.received:%H:%M:%S} {event.device.serial} {event.area}/{event.name}")


if __name__ == "__main__":
    main()
