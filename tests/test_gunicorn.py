"""gunicorn's settings as options; tests/live/test_gunicorn.py has gunicorn itself."""

from __future__ import annotations

import logging
from typing import Any

import pytest

pytest.importorskip("gunicorn")

from gunicorn.config import Config as Settings

from devserver.errors import UsageError
from devserver.gunicorn import H11Worker, InItsWords, Worker, _configuration
from tests.certificates import Certificates


def settings(**given: Any) -> Settings:
    made = Settings()
    for name, value in given.items():
        made.set(name, value)
    return made


def test_defaults() -> None:
    config = _configuration(settings(), Worker.parser, Worker.loop_name)
    assert (config.http.parser, config.http.loop) == ("auto", "auto")
    assert (config.http.keep_alive, config.http.graceful, config.http.wsgi_threads) == (2, 30, 1)
    assert (config.http.max_head, config.app.lifespan, config.app.root_path) == (65536, "auto", "")
    assert config.proxy.allow == ("127.0.0.1", "::1", "unix")
    switches = config.proxy.protocol, config.tls.enabled, config.log.access, config.reload.enabled
    assert switches == (False,) * 4


def test_the_pure_one() -> None:
    config = _configuration(settings(asgi_loop="uvloop"), H11Worker.parser, H11Worker.loop_name)
    assert (config.http.parser, config.http.loop) == ("h11", "asyncio")


@pytest.mark.parametrize(
    ("given", "section", "field", "value"),
    [
        ({"keepalive": 0}, "http", "keep_alive", 0),
        ({"graceful_timeout": 7}, "http", "graceful", 7),
        ({"threads": 5}, "http", "wsgi_threads", 5),
        ({"asgi_loop": "asyncio"}, "http", "loop", "asyncio"),
        ({"limit_request_field_size": 100_000}, "http", "max_head", 104_094),
        ({"asgi_lifespan": "off"}, "app", "lifespan", "off"),
        ({"root_path": "/beta"}, "app", "root_path", "/beta"),
        ({"websocket_max_message_size": 99}, "websocket", "max_size", 99),
        ({"forwarded_allow_ips": "10.0.0.0/8"}, "proxy", "allow", ("10.0.0.0/8", "unix")),
        ({"forwarded_allow_ips": "*"}, "proxy", "allow", ("*", "unix")),
        ({"proxy_protocol": "auto"}, "proxy", "protocol", True),
        (
            {"proxy_protocol": "auto", "proxy_allow_ips": "10.0.0.1", "forwarded_allow_ips": "*"},
            "proxy",
            "allow",
            ("10.0.0.1", "unix"),
        ),
    ],
)
def test_settings(given: dict[str, Any], section: str, field: str, value: object) -> None:
    config = _configuration(settings(**given), Worker.parser, Worker.loop_name)
    assert getattr(getattr(config, section), field) == value


def test_tls(tmp_path: Any) -> None:
    made = Certificates(tmp_path)
    given: dict[str, Any] = {
        "certfile": str(made.certfile),
        "keyfile": str(made.keyfile),
        "ciphers": "ECDHE+AESGCM",
    }
    config = _configuration(settings(**given), Worker.parser, Worker.loop_name)
    assert (config.tls.certfile, config.tls.keyfile) == (given["certfile"], given["keyfile"])
    assert (config.tls.cert_reqs, config.tls.ciphers) == ("none", "ECDHE+AESGCM")
    given |= {"ca_certs": str(made.root), "cert_reqs": 2}
    assert _configuration(settings(**given), "h11", "asyncio").tls.cert_reqs == "required"
    with pytest.raises(UsageError, match="give --certfile"):
        _configuration(settings(keyfile=given["keyfile"]), "h11", "asyncio")


@pytest.mark.parametrize(("threads", "told"), [(1, False), (2, True)])
def test_options_are_called_as_gunicorn_calls_them(threads: int, told: bool) -> None:
    text = "requests wait (--wsgi-threads), longer than %g s (--timeout-graceful-shutdown)"
    record = logging.LogRecord("devserver", logging.WARNING, "", 0, text, (3.0,), None)
    assert InItsWords(threads).filter(record) is told
    assert record.getMessage() == "requests wait (--threads), longer than 3 s (--graceful-timeout)"
