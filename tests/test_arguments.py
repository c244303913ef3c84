"""The types of `run` and `Config` are those of the options."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import pytest

from devserver.arguments import Arguments
from devserver.config import OPTIONS, Config

HINTS = get_type_hints(Arguments)

EXAMPLES: dict[Any, list[object]] = {
    bool: [True, False],
    int: [3],
    float: [2.5],
    str: ["/x"],
    PathLike[str]: [Path("x")],
    Sequence[str]: [["/x", "/y"]],
    Sequence[str | PathLike[str]]: [["x", Path("y")]],
}
"""Values of a type; what an option asks of them beyond their type is added below."""

SPECIAL: dict[str, dict[object, object]] = {
    "host": {"/x": "localhost"},
    "forwarded_allow_ips": {"/x": "10.0.0.0/8,unix", ("/x", "/y"): ["::1", "*"]},
    "header": {"/x": "A: b", ("/x", "/y"): ["A: b", "C: d"]},
}

NEEDED: dict[str, dict[str, object]] = {
    "ssl_keyfile": {"ssl_certfile": "x"},
    "ssl_ca_certs": {"ssl_certfile": "x"},
    "ssl_cert_reqs": {"ssl_certfile": "x", "ssl_ca_certs": "x"},
    "limit_max_requests_jitter": {"limit_max_requests": 100},
}
"""What else must be given."""


def test_every_option_has_a_type_in_the_same_order() -> None:
    assert list(HINTS) == list(OPTIONS)


@pytest.mark.parametrize("name", [name for name in OPTIONS if name != "target"])
def test_values_of_the_type_are_taken(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folders = OPTIONS[name].kind.metavar == "FOLDER" or name in ("app_dir", "reload_dir")
    for each in ("x", "y"):
        (tmp_path / each).mkdir() if folders else (tmp_path / each).write_text("")
    for kind in get_args(HINTS[name]):
        values = list(get_args(kind)) if getattr(kind, "__origin__", None) is Literal else []
        for value in values or EXAMPLES.get(kind, []):
            key = tuple(value) if isinstance(value, list) else value
            given = SPECIAL.get(name, {}).get(key, value) if name in SPECIAL else value
            if given == "/x" and OPTIONS[name].kind.metavar in ("FOLDER", "FILE", "FILE|fd:N"):
                given = "x"
            options: Any = {**NEEDED.get(name, {}), name: given}
            Config("app", **options)


@pytest.mark.parametrize("name", [name for name in OPTIONS if name != "target"])
def test_choices_are_all_of_them(name: str) -> None:
    metavar = OPTIONS[name].kind.metavar
    told = [get_args(kind) for kind in get_args(HINTS[name]) if getattr(kind, "__origin__", None) is Literal]
    if metavar.startswith("["):
        assert [*told[0]] == metavar[1:-1].split("|")
    else:
        assert told in ([], [("auto",)])
