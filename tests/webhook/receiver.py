"""A receiver of webhooks, from the standard library alone. It prints a JSON object a line for each request it was sent.

The file --answers holds the status to answer with, and a second word for Retry-After; 204 without it. The path /hang never
answers.
"""

import argparse
import base64
import hashlib
import hmac
import http.server
import json
import pathlib
import sys
import threading
import time

PRINTING = threading.Lock()


def valid(secret, headers, body):
    """Whether the body is from whoever has the secret, and not of long ago."""
    message_id, timestamp = headers["webhook-id"], headers["webhook-timestamp"]
    if abs(time.time() - int(timestamp)) > 300:
        return False
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{message_id}.{timestamp}.".encode() + body
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    given = [part[3:] for part in headers["webhook-signature"].split(" ") if part.startswith("v1,")]
    return any(hmac.compare_digest(expected, signature) for signature in given)


def tell(told):
    with PRINTING:
        print(json.dumps(told), flush=True)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--host", default="127.0.0.1")
    arguments.add_argument("--port", type=int, default=0)
    arguments.add_argument("--secret", required=True)
    arguments.add_argument("--answers", type=pathlib.Path, required=True)
    arguments = arguments.parse_args()

    class Receiver(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.path == "/hang":
                threading.Event().wait()
            answer = (arguments.answers.read_text() if arguments.answers.exists() else "204").split()
            tell({
                "path": self.path,
                "valid": valid(arguments.secret, self.headers, body),
                "id": self.headers["webhook-id"],
                "media_type": self.headers["content-type"],
                "answer": int(answer[0]),
                "event": json.loads(body),
            })
            self.send_response(int(answer[0]))
            if answer[1:]:
                self.send_header("retry-after", answer[1])
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    http.server.ThreadingHTTPServer.daemon_threads = True
    http.server.ThreadingHTTPServer.request_queue_size = 128
    server = http.server.ThreadingHTTPServer((arguments.host, arguments.port), Receiver)
    tell({"port": server.server_address[1]})
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        sys.exit(0)


main()
