"""The options as Python types, for `run` and `Config`: an editor completes them, a type checker checks them.

A test holds them to the options of `config`. Only type checkers import this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Literal, TypedDict

Path = str | PathLike[str]


class Arguments(TypedDict, total=False):
    """Every option by its Python name. None means not given; times are in seconds, sizes in bytes."""

    target: object
    factory: bool | None
    interface: Literal["auto", "asgi3", "asgi2", "wsgi"] | None
    app_dir: Path | None
    env_file: Path | None
    root_path: str | None
    lifespan: Literal["auto", "on", "off"] | None

    host: str | None
    port: int | Literal["auto"] | None
    uds: Path | None
    fd: int | None
    qr: bool | None
    backlog: int | None

    https: bool | None
    ssl_certfile: Path | None
    ssl_keyfile: Path | None
    ssl_keyfile_password: str | None
    ssl_ca_certs: Path | None
    ssl_cert_reqs: Literal["none", "optional", "required"] | Literal[0, 1, 2] | None
    ssl_ciphers: str | None
    ssl_version: Literal["auto", "1.2", "1.3"] | Literal[2, 5, 17] | None

    reload: bool | None
    reload_dir: Path | Sequence[Path] | None
    reload_include: str | Sequence[str] | None
    reload_exclude: str | Sequence[str] | None
    reload_grace: float | None
    reload_overlap: bool | None
    restart: Literal["auto", "warm", "cold"] | None
    checkpoints: int | None
    checkpoint_memory: float | None
    poll: bool | None
    load_timeout: float | None
    error_page: Literal["full", "short"] | None

    companions: bool | None

    workers: int | None
    preload: bool | None
    timeout_worker_healthcheck: float | None
    limit_max_requests: int | None
    limit_max_requests_jitter: int | None
    limit_max_memory: int | None
    pidfile: Path | None

    protocol: Literal["http", "uwsgi"] | None
    http: Literal["auto", "h11", "httptools"] | None
    http2: bool | None
    loop: Literal["auto", "asyncio", "uvloop"] | None
    timeout_keep_alive: float | None
    timeout_header: float | None
    timeout_graceful_shutdown: float | None
    h11_max_incomplete_event_size: int | None
    limit_concurrency: int | None
    wsgi_threads: int | None
    header: str | Sequence[str] | None
    server_header: bool | None
    date_header: bool | None

    proxy_headers: bool | None
    forwarded_allow_ips: str | Sequence[str] | None
    proxy_protocol: bool | None

    ws: Literal["auto", "wsproto", "none"] | None
    ws_max_size: int | None
    ws_ping_interval: float | None
    ws_ping_timeout: float | None
    ws_per_message_deflate: bool | None

    log_level: Literal["critical", "error", "warning", "info", "debug", "trace"] | None
    log_config: Path | None
    access_log: bool | None
    use_colors: bool | None
    events: Path | None
