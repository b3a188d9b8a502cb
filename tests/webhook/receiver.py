"""A receiver of webhooks, from the standard library alone but for its certificate. It prints a JSON object a line for each request it was sent.

With --tls it speaks TLS as localhost, under a certificate of its own that it writes to that file.

The file --answers holds the status to answer with, and a second word for Retry-After; 204 without it. The path /hang never
answers.
"""

import argparse
import base64
import datetime
import hashlib
import hmac
import http.server
import json
import pathlib
import ssl
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


def certified(path):
    """A context with a new certificate for localhost, which is its own authority."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(days=1))
    certificate = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False).sign(
        key, hashes.SHA256()
    )
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = path.with_suffix(".key")
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, private)
    return context


def tell(told):
    with PRINTING:
        print(json.dumps(told), flush=True)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--host", default="127.0.0.1")
    arguments.add_argument("--port", type=int, default=0)
    arguments.add_argument("--secret", required=True)
    arguments.add_argument("--answers", type=pathlib.Path, required=True)
    arguments.add_argument("--tls", type=pathlib.Path)
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
    if arguments.tls:
        server.socket = certified(arguments.tls).wrap_socket(server.socket, server_side=True)
    tell({"port": server.server_address[1]})
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        sys.exit(0)


main()
