"""Drives the broker with the paho client: publishes at every QoS to itself and loses a second client with a will.

Usage: paho_client.py HOST PORT COUNT. Prints one line and exits 0 when everything arrived in order.
"""

import queue
import sys

import paho.mqtt.client as mqtt

PATIENCE = 30


def connected(name, host, port, will=None):
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=name, protocol=mqtt.MQTTv311)
    client.max_inflight_messages_set(50)
    got, ready = queue.Queue(), queue.Queue()
    client.on_message = lambda _client, _data, message: got.put((message.topic, message.payload))
    client.on_connect = lambda _client, _data, _flags, code, _props: ready.put(("connected", code))
    client.on_subscribe = lambda _client, _data, _mid, codes, _props: ready.put(("subscribed", codes))
    if will:
        client.will_set(will, b"gone", qos=1)
    client.connect(host, port, keepalive=30)
    client.loop_start()
    what, code = ready.get(timeout=PATIENCE)
    assert what == "connected" and not code.is_failure, code
    return client, got, ready


def main():
    host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    client, got, ready = connected("paho", host, port)
    client.subscribe([("paho/#", 2)])
    what, codes = ready.get(timeout=PATIENCE)
    assert what == "subscribed" and [code.value for code in codes] == [1], codes

    for qos in (0, 1, 2):
        topic = f"paho/{qos}"
        sent = [client.publish(topic, str(number), qos=qos) for number in range(count)]
        for info in sent:
            info.wait_for_publish(timeout=PATIENCE)
            assert info.is_published()
        for number in range(count):
            assert got.get(timeout=PATIENCE) == (topic, str(number).encode()), (qos, number)

    lost, _, _ = connected("paho-lost", host, port, will="paho/will")
    lost.socket().close()
    assert got.get(timeout=PATIENCE) == ("paho/will", b"gone")

    client.disconnect()
    client.loop_stop()
    assert got.empty()
    print(f"{3 * count} messages and one will")


if __name__ == "__main__":
    main()
