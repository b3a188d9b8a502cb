"""An S3-compatible service for tests: moto, on a free port of the loopback net.

Prints its port. Each line on standard input, "stop" or "start", is carried out and answered by the same word; what is stored stays
meanwhile. It ends with its standard input.
"""

import logging
import sys

from moto.server import ThreadedMotoServer


def serve(port: int) -> tuple[ThreadedMotoServer, int]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    return server, server.get_host_and_port()[1]


def main() -> None:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server, port = serve(0)
    print(port, flush=True)
    for line in sys.stdin:
        word = line.strip()
        if word == "stop":
            server.stop()
            # Nobody is to find a socket that takes connections and answers nothing.
            server._server.server_close()
        elif word == "start":
            server, _ = serve(port)
        print(word, flush=True)


if __name__ == "__main__":
    main()
