"""Packages that options need are looked for before anything is promised."""

from __future__ import annotations

from typing import Any

import pytest

from devserver import Config, launch
from devserver.errors import UsageError


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"http": "httptools"},
            "--http httptools: httptools is not installed; pip install 'devserver[fast]'",
        ),
        ({"loop": "uvloop"}, "--loop uvloop: uvloop is not installed; pip install 'devserver[fast]'"),
        ({"http2": True}, "--http2: hpack is not installed; pip install 'devserver[http2]'"),
        ({"qr": True}, "--qr: segno is not installed; pip install 'devserver[qr]'"),
    ],
)
def test_a_missing_extra_ends_it_before_it_listens(
    options: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("devserver.extras.find_spec", lambda name: None)
    with pytest.raises(UsageError) as error:
        launch.start(Config("shop.main:app", port=0, **options))
    assert str(error.value) == said
    assert "listening" not in capsys.readouterr().err
