"""A warm restart is a restart: with a way out, with the options of now, with what a fresh process has."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import site
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.live.process import ALL, EACH, MARKED, DevServer, save
from tests.live.projects import PROJECTS, answer
from tests.live.terminal import OnTerminal

pytestmark = [
    pytest.mark.live,
    pytest.mark.cpython,
    pytest.mark.skipif(sys.platform != "linux", reason="there are no warm restarts"),
]

APP = """
import json
import page

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        print("shutdown", flush=True)
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(page.state()).encode()})
"""


def write(folder: Path, early: str, late: str, text: str, state: str = "TEXT") -> None:
    """A page of which what is early stands before a checkpoint, in the long run."""
    (folder / "app.py").write_text(APP)
    page = [
        "import os, time",
        early,
        "EARLY_IS_OVER = True",
        f"TEXT = {text!r}",
        late,
        f"def state(): return {state}",
    ]
    save(folder / "page.py", "\n".join(page))


def ask(server: DevServer) -> Any:
    return json.loads(server.get("/").text)


def warmed(server: DevServer, folder: Path, early: str, late: str = "", state: str = "TEXT") -> None:
    """Restart on an edit of what is late; the early part is not executed again."""
    write(folder, early, late, "warmed", state)
    restart = server.restarted()
    assert (restart["path"], restart["line"] > 2) == (str(folder / "page.py"), True), server.log


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    """A folder outside the project: what is read there is no reason to execute anything again."""
    folder = tmp_path.with_name(f"{tmp_path.name}-beside")
    folder.mkdir()
    return folder


def counted(beside: Path) -> tuple[str, str]:
    """Statements that count executions of what is early, and of what is late."""
    return (
        f"EARLY = os.open({str(beside / 'early')!r}, os.O_CREAT | os.O_APPEND | os.O_WRONLY); "
        "os.write(EARLY, b'x'); os.close(EARLY)",
        f"LATE = os.open({str(beside / 'late')!r}, os.O_CREAT | os.O_APPEND | os.O_WRONLY); "
        "os.write(LATE, b'x'); os.close(LATE)",
    )


@pytest.mark.interpreter
def test_loading_that_takes_a_while_leaves_a_checkpoint_behind_it(tmp_path: Path, beside: Path) -> None:
    """The policy by which users are served: half a second is worth one, whatever a fork costs here."""
    early, late = counted(beside)
    write(tmp_path, f"{early}; time.sleep(0.5)", late, "one")
    with DevServer("app:app", "--reload", cwd=tmp_path) as server:
        server.serving()
        for text in ("two", "three"):
            write(tmp_path, f"{early}; time.sleep(0.5)", late, text)
            assert server.restarted()["path"] == str(tmp_path / "page.py")
            assert ask(server) == text
        assert (beside / "early").stat().st_size == 1
        assert (beside / "late").stat().st_size == 3


STRAYS = {
    "dies": ("os.kill(os.getpid(), 9)", "the resumed process was ended by SIGKILL: loading everything again"),
    "exits": ("os._exit(3)", "the resumed process exited with code 3: loading everything again"),
    "hangs": ("time.sleep(1000)", "the resumed process takes too long: loading everything again"),
}


@pytest.mark.parametrize("how", STRAYS)
def test_a_warm_start_that_leads_nowhere_is_a_cold_one_at_once(
    how: str, tmp_path: Path, beside: Path
) -> None:
    """It would not have done so as a cold one; nobody has to press a key."""
    statement, told = STRAYS[how]
    early, late = counted(beside)
    trap = f"{late}\nif os.path.getsize({str(beside / 'early')!r}) < {{}}: {statement}"
    write(tmp_path, early, late, "one")
    with DevServer("app:app", "--reload", *ALL, cwd=tmp_path, env=EACH) as server:
        server.serving()
        warmed(server, tmp_path, early, late)
        starts = (beside / "early").stat().st_size
        write(tmp_path, early, trap.format(starts + 1), "two")
        assert server.restarted()["kind"] == "warm"
        assert ask(server) == "two"
        assert (beside / "early").stat().st_size == starts + 1
        assert server.log.count("loading everything again") == 1
        assert told in server.log
        assert [event["reason"] in told for event in server.events("warm_start_failed")] == [True]
        assert "resumed" not in server.log[server.log.index("loading everything again") :]
        assert not server.events("failed")
        warmed(server, tmp_path, early, late)  # and from then on as before


def test_a_warm_start_may_take_as_long_as_a_cold_one(tmp_path: Path) -> None:
    """After the time for a 503 requests are told so, and the start goes on."""
    for name in ("early", "late"):
        (tmp_path / f"{name}.py").write_text(f"NAME = {name!r}\n")
    (tmp_path / "app.py").write_text(
        "import early, os, time\ntime.sleep(float(os.environ['SLOW']))\nimport late\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    return [early.NAME.encode()]\n"
    )
    env = {**EACH, "SLOW": "1.5"}
    with DevServer("app:app", "--reload", "--load-timeout", "0.2", cwd=tmp_path, env=env) as server:
        server.serving()
        for text in ("two", "three"):
            save(tmp_path / "early.py", f"NAME = {text!r}\n")
            server.wait("change")
            assert server.get("/").status == 503
            assert server.wait("restart")["kind"] == "warm"
            server.serving()
            assert server.get("/").text == text
        assert not server.events("warm_start_failed")


def test_a_lifespan_takes_the_time_that_it_takes(tmp_path: Path) -> None:
    """How long is known from the cold start; the load says nothing about it."""
    slow = "await receive()\n        import asyncio; await asyncio.sleep(2.6)"
    write(tmp_path, "", "", "one")
    (tmp_path / "app.py").write_text(APP.replace("await receive()", slow, 1))
    with DevServer("app:app", "--reload", cwd=tmp_path) as server:
        server.serving()
        write(tmp_path, "", "", "two")
        assert server.restarted()["kind"] == "warm"
        assert ask(server) == "two"
        assert "loading everything again" not in server.log


def test_a_warm_start_that_raises_shows_its_error_at_once(tmp_path: Path, beside: Path) -> None:
    early, late = counted(beside)
    write(tmp_path, early, late, "one")
    with DevServer("app:app", "--reload", *ALL, cwd=tmp_path, env=EACH) as server:
        server.serving()
        warmed(server, tmp_path, early, late)
        starts = (beside / "early").stat().st_size
        write(tmp_path, early, f"{late}\nraise LookupError('no such thing')", "two")
        assert "no such thing" in server.failed()["error"]
        write(tmp_path, early, late, "three")
        server.restarted()
        assert ask(server) == "three"
        assert (beside / "early").stat().st_size == starts, "what is early was executed again"
        assert "loading everything again" not in server.log


@pytest.mark.parametrize(
    ("name", "state"), [("words.txt", "open('words.txt').read()"), ("words.py", "__import__('words').TEXT")]
)
def test_what_only_requests_read_is_gone_on_from_the_end_of_loading(
    name: str, state: str, tmp_path: Path, beside: Path
) -> None:
    """The first save costs what came since the last checkpoint; from then on there is one at the end."""
    early, late = counted(beside)
    text = "TEXT = '{}'\n" if name.endswith(".py") else "{}"
    write(tmp_path, early, late, "", f"{state}.strip()")
    save(tmp_path / name, text.format("one"))
    with DevServer("app:app", "--reload", cwd=tmp_path, env=MARKED) as server:
        server.serving()
        assert ask(server) == "one"
        save(tmp_path / name, text.format("two"))
        server.restarted()
        assert ask(server) == "two"
        executed = (beside / "late").stat().st_size
        save(tmp_path / name, text.format("three"))
        server.restarted()
        assert ask(server) == "three"
        assert (beside / "late").stat().st_size == executed
        assert "resumed at the end of loading" in server.log


def test_the_end_of_loading_keeps_no_checkpoint_when_something_else_is_edited(tmp_path: Path) -> None:
    write(tmp_path, "", "", "", "open('words.txt').read()")
    save(tmp_path / "words.txt", "none")
    with DevServer("app:app", "--reload", cwd=tmp_path, env=MARKED) as server:
        server.serving()
        ask(server)
        for text in ("one", "two"):
            save(tmp_path / "words.txt", text)
            server.restarted()
            assert ask(server) == text
        for edit in range(5):
            write(tmp_path, "", "", f"{edit}", "open('words.txt').read()")
            server.restarted()
        assert ask(server)
        save(tmp_path / "words.txt", "three")
        assert server.restarted()["path"] == str(tmp_path / "page.py")
        assert ask(server) == "three"


def test_where_only_two_checkpoints_are_kept_the_second_is_behind_the_last_edit(tmp_path: Path) -> None:
    """And not where loading has come furthest."""
    modules = ("early", "leaf", "tail", "rest")
    (tmp_path / "app.py").write_text(
        "".join(f"import {name}\n" for name in modules) + APP.replace("page", "leaf")
    )
    for name in modules:
        (tmp_path / f"{name}.py").write_text("import time\nFIRST = 1\n")
    with DevServer("app:app", "--reload", "--checkpoints", "2", cwd=tmp_path, env=EACH) as server:
        server.serving()
        restarts = []
        for number in range(6):
            text = f"import time\nFIRST = 1\ndef state(): return {number}\n"
            save(tmp_path / "leaf.py", text)
            restarts.append(server.restarted())
            assert ask(server) == number
        assert all(restart["path"] for restart in restarts[2:]), "not from the start"


TWO_MODULES = {
    "app.py": """
import json, one, two
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({"one": one.RAN, "two": two.RAN, "texts": [one.TEXT, two.TEXT]}).encode()]
""",
    "one.py": "import os\nRAN = os.getpid()\nTEXT = 'one'\n",
    "two.py": "import os\nRAN = os.getpid()\nTEXT = 'two'\n",
}


@pytest.mark.parametrize("broken", ["TEXT = (\n", "TEXT = nothing\n"], ids=["syntax", "name"])
def test_a_save_that_mends_gives_up_nothing_that_was_good(broken: str, tmp_path: Path) -> None:
    """What a failed restart went back behind is kept until one succeeds."""
    one, two = tmp_path / "one.py", tmp_path / "two.py"
    for name, text in TWO_MODULES.items():
        save(tmp_path / name, text)
    with DevServer("app:app", "--reload", *ALL, cwd=tmp_path, env=EACH) as server:
        server.serving()
        first = ask(server)

        def break_one() -> None:
            save(one, TWO_MODULES["one.py"].replace("TEXT = 'one'\n", broken))
            server.wait("failed")

        break_one()
        save(one, TWO_MODULES["one.py"])
        assert server.restarted()["kind"] == "warm"
        assert ask(server) == first, "all was as it had been loaded: nothing is executed again"

        break_one()
        save(one, TWO_MODULES["one.py"].replace("'one'", "'ONE'"))
        assert server.restarted()["path"] == str(one)
        mended = ask(server)
        assert (mended["texts"], mended["one"]) == (["ONE", "two"], first["one"])

        # What changed meanwhile, and only the last good load had read, counts all the same.
        save(two, TWO_MODULES["two.py"].replace("'two'", "'TWO'"))
        assert server.restarted()["path"] == str(two)
        before = ask(server)
        break_one()
        save(two, TWO_MODULES["two.py"])
        save(one, TWO_MODULES["one.py"].replace("'one'", "'ONE'"))
        after = ask(server)
        assert (after["texts"], after["one"]) == (["ONE", "two"], before["one"])


FOUND = """
import os, early
{name} = lambda environ, start_response: start_response("200 OK", []) and None or [
    f"{text} {{early.PID}} {{os.getpid()}}".encode()]
"""


def test_an_edit_of_the_application_that_was_found_goes_on_behind_its_imports(tmp_path: Path) -> None:
    """Nobody named it. That it was looked into to find it is not a reason to begin before everything."""
    app = tmp_path / "app.py"
    save(tmp_path / "early.py", "import os\nPID = os.getpid()\n")
    save(app, FOUND.format(name="app", text="one"))
    with DevServer("--reload", *ALL, cwd=tmp_path, env=EACH) as server:
        server.serving()
        first = server.get("/").text.split()
        save(app, FOUND.format(name="app", text="two"))
        restart = server.restarted()
        assert (restart["kind"], restart["path"], restart["line"]) == ("warm", str(app), 3)
        text, early, process = server.get("/").text.split()
        assert (text, early) == ("two", first[1])
        assert process != first[2]
        save(app, FOUND.format(name="application", text="three"))
        restart = server.restarted()
        assert (restart["kind"], restart["obstacle"]) == ("cold", "another application is found")
        assert server.get("/").text.startswith("three ")
        save(tmp_path / "main.py", FOUND.format(name="app", text="main"))
        assert server.restarted()["kind"] == "cold"
        assert server.get("/").text.startswith("main ")
        save(tmp_path / "main.py", "print('a program')\n")
        server.restarted()
        assert server.get("/").text.startswith("three ")
        save(tmp_path / "main.py", FOUND.format(name="app", text="again"))
        server.restarted()
        assert server.get("/").text.startswith("again ")


def test_a_default_timeout_of_sockets_is_none_of_ours(tmp_path: Path) -> None:
    """What waits for a word waits as long as it takes."""
    early = "import socket; socket.setdefaulttimeout(0.05)"
    write(tmp_path, early, "", "one")
    with DevServer("app:app", "--reload", *ALL, cwd=tmp_path, env=EACH) as server:
        server.serving()
        warmed(server, tmp_path, early)
        for number in range(3):
            server.idle(0.3)
            write(tmp_path, early, "", f"{number}")
            assert server.restarted()["line"] > 2
            assert ask(server) == f"{number}"


def test_r_restarts_warm_and_a_capital_one_cold(tmp_path: Path) -> None:
    PROJECTS["wsgi"].make(tmp_path)
    with OnTerminal("app:application", "--reload", cwd=tmp_path) as server:
        server.serving()
        for key, kind in (("r", "warm"), ("R", "cold"), ("r", "warm")):
            server.types(f"{key}\n")
            restart = server.restarted()
            assert (restart["kind"], restart["reason"]) == (kind, f"{key} was pressed")
            assert server.get("/").text == "one"


@pytest.mark.parametrize(("option", "kind"), [("warm", "warm"), ("cold", "cold")])
def test_option_restart(option: str, kind: str, tmp_path: Path) -> None:
    path = PROJECTS["wsgi"].make(tmp_path)
    with DevServer("app:application", "--reload", "--restart", option, cwd=tmp_path) as server:
        server.serving()
        save(path, answer("two"))
        assert server.restarted()["kind"] == kind
        assert server.get("/").text == "two"
        told = re.search(r"answer\.py changed[^:]*: (restarted|resumed)\b", server.log)
        assert told is not None
        assert told[1] == ("resumed" if kind == "warm" else "restarted")


# what a warm process must not meet


def test_changed_environment_file_is_met_by_fresh_processes_only(tmp_path: Path) -> None:
    """And by one for each of the changes, however fast they come."""
    path = tmp_path / ".env"
    path.write_text("GREETING=one\n")
    (tmp_path / "local.env").write_text("")
    write(tmp_path, "GREETING = os.environ['GREETING']", "", "text", "GREETING")
    with DevServer("app:app", "--reload", "--env-file", ".env", cwd=tmp_path) as server:
        server.serving()
        assert ask(server) == "one"
        for greeting in ("two", "three"):
            path.write_text(f"GREETING={greeting}\n")
            assert server.restarted()["kind"] == "cold"
            assert ask(server) == greeting
        write(tmp_path, "GREETING = os.environ['GREETING']", "", "other", "GREETING + TEXT")
        assert server.restarted()["kind"] == "warm"
        assert ask(server) == "threeother"
        # Both at a time.
        path.write_text("GREETING=four\n")
        write(tmp_path, "GREETING = os.environ['GREETING']", "", "text", "GREETING + TEXT")
        while (said := ask(server)) != "fourtext":
            assert said == "fourother"  # in between
            server.restarted()


def test_changed_options_are_met_by_a_fresh_process(tmp_path: Path) -> None:
    path = PROJECTS["wsgi"].make(tmp_path)
    options = tmp_path / "pyproject.toml"
    options.write_text("[tool.devserver]\n")
    with DevServer("app:application", "--reload", cwd=tmp_path) as server:
        server.serving()
        options.write_text('[tool.devserver]\nheader = ["X-Name: value"]\n')
        assert server.restarted()["kind"] == "cold"
        assert server.get("/").headers["x-name"] == "value"
        save(path, answer("two"))
        assert server.restarted()["kind"] == "warm"
        assert server.get("/").headers["x-name"] == "value"
        assert "by hand" not in server.log


def test_a_listener_that_would_be_another_is_told_once_to_be_started_by_hand(tmp_path: Path) -> None:
    PROJECTS["wsgi"].make(tmp_path)
    options = tmp_path / "pyproject.toml"
    options.write_text("[tool.devserver]\n")
    with DevServer("app:application", "--reload", cwd=tmp_path) as server:
        server.serving()
        options.write_text('[tool.devserver]\nhost = "0.0.0.0"\nbacklog = 5\n')
        server.restarted()
        assert server.get("/").text == "one"
        options.write_text('[tool.devserver]\nhost = "0.0.0.0"\nbacklog = 5\ndate-header = false\n')
        server.restarted()
        told = "host, backlog: listeners stay as they are; stop devserver and start it by hand to change them"
        assert server.log.count(told) == 1, server.log


def test_changed_packages_are_met_by_a_fresh_process(tmp_path: Path, beside: Path) -> None:
    path = PROJECTS["wsgi"].make(tmp_path)
    place = site.getusersitepackages().removeprefix(str(site.getuserbase()))
    packages = Path(f"{beside}{place}")
    packages.mkdir(parents=True)
    env = {"PYTHONUSERBASE": str(beside)}
    with DevServer("app:application", "--reload", cwd=tmp_path, env=env) as server:
        server.serving()
        for kind, text in (("warm", "two"), ("cold", "three"), ("warm", "four")):
            if kind == "cold":
                (packages / "new_package.py").write_text("")
            save(path, answer(text))
            assert server.restarted()["kind"] == kind
            assert server.get("/").text == text


# what it says


def test_says_what_changed_where_it_resumed_and_how_long_it_took(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "views.py").write_text("\n" * 39 + "TEXT = 'one'\nOTHER = 'one'\n")
    (folder / "urls.py").write_text("import time\nFIRST = 1\n\nfrom shop import views\n")
    write(tmp_path, "from shop import urls", "", "text", "urls.views.OTHER")
    with DevServer("app:app", "--reload", "--checkpoint-memory", "9", cwd=tmp_path, env=EACH) as server:
        server.serving()
        assert ask(server) == "one"
        restarts = []
        for text in ("two", "three", "four"):
            server.wait("checkpoints")  # by then the lines are known, too
            save(folder / "views.py", "\n" * 39 + f"TEXT = 'one'\nOTHER = {text!r}\n")
            assert server.wait("change")["line"] == 41
            restarts.append(server.restarted())
            assert ask(server) == text
        server.wait("checkpoints")
        resumed = re.findall(
            r"^devserver: shop/views\.py changed at line 41: resumed at line (\d+) of (\S+), "
            r"\d\.\d\d s \(cold: \d\.\d s\)$",
            server.log,
            re.MULTILINE,
        )
        assert resumed[-1][1].startswith("shop/")
        named = [
            (str(event["line"]), os.path.relpath(event["path"], tmp_path))
            for event in restarts
            if event["path"]
        ]
        assert resumed == named
        assert restarts[-1]["reads"] > 0
        assert all(event["seconds"] > 0 for event in server.events("serving"))
        checkpoints = server.events("checkpoints")
        assert all(1 <= event["count"] <= 4 and event["memory"] > 2**20 for event in checkpoints)


# what a process has

STATES = {
    "drawn at import": ("import random; random.seed(7); DRAWN = random.random()", "DRAWN"),
    "drawn later": ("", "random.random()"),
    "drawn after a draw": ("DRAWN = random.random()", "[DRAWN, random.random()]"),
    "handler of SIGTERM": (
        "import signal; signal.signal(signal.SIGTERM, lambda *a: None)",
        "getattr(signal.getsignal(signal.SIGTERM), '__qualname__', '')",
    ),
    "handler of SIGUSR1": (
        "USED = []; signal.signal(signal.SIGUSR1, lambda *a: USED.append(1))",
        "[signal.raise_signal(signal.SIGUSR1), len(USED)]",
    ),
    "handlers": ("", "[str(signal.getsignal(n)).partition(' at ')[0] for n in signal.valid_signals()]"),
    "blocked signals": (
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])",
        "sorted(signal.pthread_sigmask(signal.SIG_BLOCK, []))",
    ),
    "context variable": (
        "import contextvars; VARIABLE = contextvars.ContextVar('v', default='none'); VARIABLE.set('import')",
        "VARIABLE.get()",
    ),
    "decimal": ("import decimal; decimal.getcontext().prec = 5", "decimal.getcontext().prec"),
    "threads": (
        "import threading; MAIN = threading.main_thread(); LOCAL = threading.local(); LOCAL.x = 1",
        "[threading.main_thread() is MAIN, MAIN.ident == threading.get_ident(), LOCAL.x, "
        "MAIN.native_id == os.getpid(), sorted(t.name for t in threading.enumerate())]",
    ),
    "umask": ("os.umask(0o027)", "[os.umask(0o022), os.umask(0o027)][0]"),
    "collector": ("import gc", "[gc.isenabled(), gc.get_threshold()]"),
    "seeds": ("from random import seed, Random; OWN = Random(5)", "[OWN.random(), seed.__module__]"),
}

NUMPY = {
    # Its native threads are tried by a fork, too.
    "ends of children": (
        "import signal; ENDED = []; signal.signal(signal.SIGCHLD, lambda *a: ENDED.append(1))",
        "len(ENDED)",
    ),
    "numpy": ("import numpy; numpy.random.seed(3)", "numpy.random.random()"),
    "numpy's generator": ("GENERATOR = numpy.random.default_rng(3)", "GENERATOR.random()"),
}

CHILDREN = {
    "ignored": (
        "import signal, subprocess; signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
        "[str(signal.getsignal(signal.SIGCHLD)), subprocess.run(['true']).returncode]",
    ),
    "handled": (
        "import signal, subprocess; ENDED = []; signal.signal(signal.SIGCHLD, lambda *a: ENDED.append(1))",
        "[len(ENDED), subprocess.run(['true']).returncode, len(ENDED)]",
    ),
}


def states(rows: dict[str, tuple[str, str]], mode: str, folder: Path, restarts: int = 2) -> list[Any]:
    """The states of the first generation and of some that follow."""
    folder = folder / mode
    folder.mkdir()
    early = "\n".join(early for early, _ in rows.values())
    state = "{" + ", ".join(f"{name!r}: {expression}" for name, (_, expression) in rows.items()) + "}"
    found = []
    write(folder, early, "", "one", state)
    with DevServer("app:app", "--reload", "--restart", mode, *ALL, cwd=folder, env=EACH) as server:
        server.serving()
        found.append(ask(server))
        for number in range(restarts):
            write(folder, early, "", f"{number}", state)
            assert server.restarted()["kind"] == mode
            found.append(ask(server))
        if mode == "warm":
            assert server.events("restart")[-1]["line"] > early.count("\n")
        assert not server.events("barrier")
    return found


@pytest.mark.interpreter
@pytest.mark.parametrize("rows", [STATES, CHILDREN["ignored"], CHILDREN["handled"], NUMPY])
def test_what_a_process_has_is_as_after_a_cold_start(rows: Any, tmp_path: Path) -> None:
    if rows is NUMPY and importlib.util.find_spec("numpy") is None:
        pytest.skip("numpy is not installed")
    rows = rows if isinstance(rows, dict) else {"children": rows}
    cold, warm = states(rows, "cold", tmp_path, 1), states(rows, "warm", tmp_path)
    assert cold[1:] == cold[:-1], "the trap is not set"
    for generation in warm:
        assert generation == cold[0]


UNSEEDED = {
    "random": ("import random", "random.random()"),
    "numpy": ("import numpy", "numpy.random.random()"),
}


@pytest.mark.parametrize("module", UNSEEDED)
def test_what_nobody_seeded_differs_from_generation_to_generation(module: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    found = states({"drawn": UNSEEDED[module]}, "warm", tmp_path)
    assert len({each["drawn"] for each in found}) == len(found)


# people and their signals

ENDS = {
    "Ctrl-C": lambda server: server.interrupt(),
    "SIGINT": lambda server: server.process.send_signal(signal.SIGINT),
    "SIGTERM": lambda server: server.process.send_signal(signal.SIGTERM),
}


@pytest.mark.parametrize(("end", "mode"), [*((end, "warm") for end in ENDS), ("Ctrl-C", "cold")])
def test_ends_after_a_restart(end: str, mode: str, tmp_path: Path) -> None:
    write(tmp_path, "", "", "one")
    with DevServer("app:app", "--reload", "--restart", mode, cwd=tmp_path, new_session=True) as server:
        server.serving()
        for text in ("two", "three"):
            write(tmp_path, "", "", text)
            assert server.restarted()["kind"] == mode
        server.process.send_signal(signal.SIGHUP)
        restart = server.restarted()
        assert (restart["kind"], restart["reason"]) == (mode, "SIGHUP")
        assert ask(server) == "three"
        below = server.processes()
        assert len(below) >= 2
        ENDS[end](server)
        assert server.ended() == 0
        assert server.log.count("shutdown") == 4
        assert "Traceback" not in server.log
        assert not [pid for pid in below if os.path.exists(f"/proc/{pid}")]


def test_breakpoint_after_a_warm_restart(tmp_path: Path) -> None:
    path = PROJECTS["asgi"].make(tmp_path)
    with OnTerminal("app:app", "--reload", cwd=tmp_path) as server:
        server.serving()
        save(path, answer("two", ask="secret = 6 * 7; breakpoint()"))
        assert server.restarted()["kind"] == "warm"
        with server.asking() as answered:
            server.reads("(Pdb) ")
            server.types("p secret\n")
            assert "42" in server.reads("(Pdb) ")
            server.types("c\n")
            assert answered().text == "two"
        save(path, answer("three"))
        server.restarted()
        assert server.get("/").text == "three"
        assert server.echoes


@pytest.mark.interpreter
def test_breakpoint_while_a_warm_start_loads(tmp_path: Path) -> None:
    path = PROJECTS["asgi"].make(tmp_path)
    with OnTerminal("app:app", "--reload", cwd=tmp_path) as server:
        server.serving()
        save(path, "secret = 6 * 7\nbreakpoint()\n" + answer("two"))
        server.reads("(Pdb) ")
        server.types("p secret\n")
        assert "42" in server.reads("(Pdb) ")
        server.types("c\n")
        server.restarted()
        assert server.get("/").text == "two"


REPLACES = """
import builtins, json, os, sys, time

def fail_for_us(owner, name):
    real = getattr(owner, name)
    def function(*arguments, **named):
        asks = str(sys._getframe(1).f_globals.get("__name__"))
        if asks.startswith("devserver."):
            raise RuntimeError(f"{asks} calls {name}")
        return real(*arguments, **named)
    setattr(owner, name, function)

for owner, names in {
    builtins: ["open"],
    json: ["dumps", "loads"],
    os: ["listdir"],
    os.path: ["exists", "isfile"],
    time: ["sleep", "time", "time_ns", "monotonic", "perf_counter"],
}.items():
    for name in names:
        fail_for_us(owner, name)
"""


def test_what_the_application_replaces_is_not_called_by_us(tmp_path: Path) -> None:
    """As `mock.patch` does, and tools that stop the clock, without an end."""
    (tmp_path / "page.py").write_text("TEXT = 'one'\n")
    (tmp_path / "app.py").write_text(
        f"{REPLACES}\nimport page\n"
        "async def app(scope, receive, send):\n"
        "    if scope['type'] == 'lifespan':\n"
        "        await receive()\n"
        "        await send({'type': 'lifespan.startup.complete'})\n"
        "        await receive()\n"
        "        return await send({'type': 'lifespan.shutdown.complete'})\n"
        "    await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
        "    await send({'type': 'http.response.body', 'body': page.TEXT.encode()})\n"
    )
    with DevServer("app:app", "--reload", cwd=tmp_path, env=EACH) as server:
        server.serving()
        assert server.get("/").text == "one"
        for text in ("two", "three"):
            save(tmp_path / "page.py", f"TEXT = {text!r}\n")
            assert server.get("/").text == text
            assert server.restarted()["kind"] == "warm"
        save(tmp_path / "page.py", "TEXT = None\n")
        assert "NoneType" in server.get("/").text
        server.restarted()
        save(tmp_path / "page.py", "TEXT = (\n")
        assert "was never closed" in server.get("/").text
        server.failed()
        assert server.stop() == 0
        assert "RuntimeError" not in server.log
        assert "calls" not in server.log


def test_what_was_generated_before_a_resume_has_its_source(tmp_path: Path) -> None:
    """attrs puts the source of the methods that it makes into `linecache`, once."""
    (tmp_path / "early.py").write_text(
        "import linecache\n"
        "text = 'def made():\\n    return 1\\n'\n"
        "linecache.cache['<generated>'] = len(text), None, text.splitlines(True), '<generated>'\n"
        "exec(compile(text, '<generated>', 'exec'))\n"
    )
    (tmp_path / "late.py").write_text("")
    (tmp_path / "app.py").write_text(
        "import inspect, early, late\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    return [inspect.getsource(early.made).encode()]\n"
    )
    with DevServer("app:app", "--reload", cwd=tmp_path, env=EACH) as server:
        server.serving()
        save(tmp_path / "late.py", "X = 1\n")
        assert server.get("/").text == "def made():\n    return 1\n"
        assert server.restarted()["line"]


def test_records_that_a_logging_handler_collects_stay_collected(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "import logging.handlers\n"
        "handler = logging.handlers.MemoryHandler(100, target=logging.StreamHandler())\n"
        "logging.getLogger('shop').addHandler(handler)\n"
        "logging.getLogger('shop').warning('collected')\n"
        "import late\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    return [str(len(handler.buffer)).encode()]\n"
    )
    (tmp_path / "late.py").write_text("")
    with DevServer("app:app", "--reload", cwd=tmp_path, env=EACH) as server:
        server.serving()
        assert server.get("/").text == "1"
        save(tmp_path / "late.py", "X = 1\n")
        assert server.get("/").text == "1"
        assert server.restarted()["kind"] == "warm"
