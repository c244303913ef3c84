"""The near end of a tunnel, as ngrok's or Cloudflare's agents are: asks this machine for whoever is far away.

It connects to the far end, takes a request from there, and asks a server on this machine in its name: `Host`
is rewritten, and a header says for whom it asks.

    python tunnel.py FAR-PORT PORT
"""

from __future__ import annotations

import re
import socket
import sys
import threading


def take(source: socket.socket, target: socket.socket) -> None:
    while data := source.recv(65536):
        target.sendall(data)
    target.shutdown(socket.SHUT_WR)


def main(far_port: int, port: int) -> None:
    """One request, and its answer."""
    far = socket.create_connection(("127.0.0.1", far_port))
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += far.recv(1)
    head = re.sub(rb"(?i)\r\nhost:[^\r]*", b"\r\nHost: localhost:%d" % port, head)
    near = socket.create_connection(("127.0.0.1", port))
    near.sendall(head[:-2] + b"X-Forwarded-For: 203.0.113.7\r\n\r\n")
    threading.Thread(target=take, args=(far, near), daemon=True).start()
    take(near, far)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
