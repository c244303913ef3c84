"""Packets of the uwsgi protocol, as nginx makes them with its file `uwsgi_params`."""

from __future__ import annotations

from urllib.parse import unquote

Pairs = list[tuple[str, str]]


def told(method: str = "GET", target: str = "/", **more: str) -> dict[str, str]:
    """What nginx says of a request; `more` replaces or adds. An empty value stays."""
    path, _, query = target.partition("?")
    return {
        "QUERY_STRING": query,
        "REQUEST_METHOD": method,
        "CONTENT_TYPE": "",
        "CONTENT_LENGTH": "",
        "REQUEST_URI": target,
        "PATH_INFO": unquote(path, "latin-1"),
        "DOCUMENT_ROOT": "/srv/www",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REQUEST_SCHEME": "http",
        "REMOTE_ADDR": "203.0.113.9",
        "REMOTE_PORT": "4711",
        "SERVER_PORT": "80",
        "SERVER_NAME": "shop.example",
        "HTTP_HOST": "shop.example",
        **more,
    }


def packed(pairs: dict[str, str] | Pairs, *, modifier1: int = 0, modifier2: int = 0) -> bytes:
    """A packet. Characters up to U+00FF are bytes."""
    items = pairs.items() if isinstance(pairs, dict) else pairs
    texts = [text.encode("latin-1") for item in items for text in item]
    data = b"".join(len(text).to_bytes(2, "little") + text for text in texts)
    return bytes([modifier1]) + len(data).to_bytes(2, "little") + bytes([modifier2]) + data


def packet(method: str = "GET", target: str = "/", body: bytes = b"", **more: str) -> bytes:
    """A request, with its body."""
    length = {"CONTENT_LENGTH": str(len(body))} if body else {}
    return packed(told(method, target, **{**length, **more})) + body
