"""Projects of the frameworks that people use restart warm, and are what a fresh process would be."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.live.process import DevServer
from tests.live.warm_frameworks import FRAMEWORKS, Framework, apply

pytestmark = [
    pytest.mark.live,
    pytest.mark.cpython,
    pytest.mark.skipif(sys.platform != "linux", reason="there are no warm restarts"),
]

COLD = "import json, {imports}, probe; print(json.dumps(probe.state()))"


def cold(framework: Framework, folder: Path) -> Any:
    """The state of a fresh process, which finds no bytecode of the project: saves come within a second."""
    for cache in folder.rglob("__pycache__"):
        shutil.rmtree(cache)
    done = subprocess.run(
        [sys.executable, "-Bc", COLD.format(imports=framework.imports)],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert not done.returncode, done.stderr
    return json.loads(done.stdout)


EACH_PYTHON = {"fastapi", "django"}
"""Those that run under each Python: they look at annotations, signatures and modules most."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.interpreter if name in EACH_PYTHON else []) for name in FRAMEWORKS],
)
def test_a_project_restarts_warm_and_is_what_a_fresh_process_is(name: str, tmp_path: Path) -> None:
    framework = FRAMEWORKS[name]
    if importlib.util.find_spec(framework.needs) is None:
        pytest.skip(f"{framework.needs} is not installed")
    framework.make(tmp_path)
    with DevServer(framework.target, "--reload", cwd=tmp_path) as server:
        server.serving()
        state = json.loads(server.get("/").text)["state"]
        for number, edit in enumerate(framework.edits):
            apply(tmp_path, edit)
            event = server.restarted()
            assert event["kind"] == "warm", edit
            answer = json.loads(server.get("/").text)
            before, state = state, answer["state"]
            assert state != before, edit
            assert state.get("same", True), edit
            if number == 1:  # the first has left a checkpoint just before it
                assert answer["kept"]
        assert set(re.findall("no checkpoint.*: (.*?)[(;]", server.log)) <= {f"{framework.barrier} "}
        assert not server.events("failed")
        assert state == cold(framework, tmp_path)
