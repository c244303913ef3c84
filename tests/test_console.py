"""What the terminal shows."""

import ast
import io
import json
import logging
import os
import re
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from devserver import console
from devserver.config import Log
from devserver.console import (
    ACCESS,
    LOGGER,
    AccessLog,
    banner,
    configure,
    format_failure,
    lan_urls,
    summarise,
    wants_colors,
)
from devserver.errors import ApplicationError, TargetError, UsageError
from tests.patience import DEADLINE

CLIENT = ("127.0.0.1", 51234)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


pytestmark = pytest.mark.usefixtures("own_logging")


def written(section: Log, write: Callable[[], object], stream: io.StringIO | None = None) -> str:
    stream = stream or io.StringIO()
    configure(section, stream)
    write()
    return stream.getvalue()


# --- colours ---


@pytest.mark.parametrize(
    ("option", "terminal", "environ", "expected"),
    [
        (None, True, {}, True),
        (None, False, {}, False),
        (None, True, {"NO_COLOR": "1"}, False),
        (None, True, {"NO_COLOR": ""}, True),
        (None, True, {"TERM": "dumb"}, False),
        (None, False, {"FORCE_COLOR": "1"}, True),
        (None, False, {"FORCE_COLOR": ""}, False),
        (None, False, {"FORCE_COLOR": "1", "TERM": "dumb"}, True),
        (None, False, {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        (None, False, {"PYCHARM_HOSTED": "1"}, True),
        (None, False, {"PYCHARM_HOSTED": "1", "NO_COLOR": "1"}, False),
        (True, False, {"NO_COLOR": "1", "TERM": "dumb"}, True),
        (False, True, {"FORCE_COLOR": "1"}, False),
    ],
)
def test_when_there_are_colours(
    option: bool | None, terminal: bool, environ: dict[str, str], expected: bool
) -> None:
    assert wants_colors(option, Terminal() if terminal else io.StringIO(), environ) is expected


# --- log lines ---


def test_lines_are_labelled_from_warning_up() -> None:
    def write() -> None:
        LOGGER.info("restarted in %.2f s", 0.15)
        LOGGER.warning("polling")
        LOGGER.error("no")
        LOGGER.debug("not shown")

    assert written(Log(), write) == (
        "devserver: restarted in 0.15 s\ndevserver: warning: polling\ndevserver: error: no\n"
    )


def test_levels() -> None:
    def write() -> None:
        LOGGER.log(console.TRACE, "finest")
        LOGGER.debug("fine")

    assert written(Log(level="trace"), write) == "devserver: trace: finest\ndevserver: debug: fine\n"
    assert written(Log(level="debug"), write) == "devserver: debug: fine\n"
    assert written(Log(level="critical"), lambda: LOGGER.error("no")) == ""


def test_configuring_again_replaces() -> None:
    first = io.StringIO()
    configure(Log(level="debug"), first)
    assert written(Log(), lambda: LOGGER.info("once")) == "devserver: once\n"
    assert first.getvalue() == ""
    assert len(LOGGER.handlers) == 1


def test_handlers_of_the_user_are_left_alone() -> None:
    own = logging.StreamHandler(io.StringIO())
    LOGGER.addHandler(own)
    configure(Log(), io.StringIO())
    assert own in LOGGER.handlers


def test_colours_do_not_change_the_text() -> None:
    def write() -> None:
        LOGGER.info("one")
        LOGGER.warning("two")
        AccessLog(Log())(CLIENT, "GET", b"/", "1.1", 200, 0.012)

    colored = written(Log(colors=True), write)
    assert "\x1b[33mwarning: \x1b[0m" in colored
    assert re.sub(r"\x1b\[[0-9;]*m", "", colored) == written(Log(colors=False), write)


def test_a_terminal_has_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TERM", "PYCHARM_HOSTED"):
        monkeypatch.delenv(name, raising=False)
    assert "\x1b[" in written(Log(), lambda: LOGGER.info("x"), Terminal())
    assert "\x1b[" not in written(Log(), lambda: LOGGER.info("x"), io.StringIO())


def test_control_characters_are_escaped_everywhere() -> None:
    def write() -> None:
        LOGGER.info("\x1b]0;title\x07 a\tb\nc\r\x9b\u2028")
        try:
            raise ValueError("\x1b[2J")
        except ValueError:
            LOGGER.exception("failed")

    text = written(Log(colors=False), write)
    assert text.startswith("devserver: \\x1b]0;title\\x07 a\tb\nc\\x0d\\x9b\\u2028\n")
    assert "ValueError: \\x1b[2J\n" in text


def test_text_that_the_terminal_cannot_show() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    configure(Log(), stream)
    LOGGER.info("größe \udce4")
    assert raw.getvalue() == b"devserver: gr\\xf6\\xdfe \\udce4\n"


def test_a_terminal_that_has_gone_stops_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    with open(write, "w", encoding="utf-8") as gone:
        configure(Log(), gone)
        LOGGER.info("into the void")
        ACCESS.info("the same")
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, write)  # so that closing can flush what is left
        os.close(null)
    LOGGER.info("closed")
    assert capsys.readouterr().err == ""


def test_no_stream_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    configure(Log())
    LOGGER.info("nobody hears this")


def test_every_line_is_flushed() -> None:
    read, write = os.pipe()
    with open(read, "rb") as reader, open(write, "w", encoding="utf-8") as stream:
        configure(Log(), stream)
        for text in ("one", "two"):
            LOGGER.info(text)
            assert reader.readline() == f"devserver: {text}\n".encode()


# --- --log-config ---

AS_MAPPING = {
    "handlers": {"own": {"class": "logging.FileHandler", "filename": "FILE", "formatter": "own"}},
    "formatters": {"own": {"format": "%(levelname)s|%(name)s|%(message)s"}},
}

INI = """
[loggers]
keys=root,devserver
[handlers]
keys=own
[formatters]
keys=own
[logger_root]
handlers=
[logger_devserver]
level=DEBUG
handlers=own
qualname=devserver
[handler_own]
class=FileHandler
formatter=own
args=('FILE',)
[formatter_own]
format=%(levelname)s|%(name)s|%(message)s
"""

TOML = """
[formatters.own]
format = "%(levelname)s|%(name)s|%(message)s"
[handlers.own]
class = "logging.FileHandler"
filename = "FILE"
formatter = "own"
[loggers.devserver]
level = "DEBUG"
handlers = ["own"]
"""

JSON = json.dumps(
    {"version": 1, **AS_MAPPING, "loggers": {"devserver": {"level": "DEBUG", "handlers": ["own"]}}}
)


@pytest.mark.parametrize(("suffix", "text"), [("ini", INI), ("toml", TOML), ("json", JSON), ("conf", INI)])
def test_a_configuration_file_decides(tmp_path: Path, suffix: str, text: str) -> None:
    log = tmp_path / "own.log"
    path = tmp_path / f"logging.{suffix}"
    path.write_text(text.replace("FILE", log.as_posix()), encoding="utf-8")

    def write() -> None:
        LOGGER.debug("shown")
        AccessLog(Log())(CLIENT, "GET", b"/", "1.1", 200, 0.012)

    assert written(Log(config=str(path)), write) == ""
    lines = log.read_text(encoding="utf-8").splitlines()
    for handler in list(LOGGER.handlers):
        handler.close()
    assert lines == [
        "DEBUG|devserver|shown",
        'INFO|devserver.access|127.0.0.1:51234 "GET / HTTP/1.1" 200 12 ms',
    ]


def test_a_configuration_of_the_root_alone_takes_our_records(tmp_path: Path) -> None:
    log = tmp_path / "own.log"
    path = tmp_path / "logging.json"
    path.write_text(
        json.dumps({**AS_MAPPING, "root": {"handlers": ["own"]}}).replace("FILE", log.as_posix()),
        encoding="utf-8",
    )
    root = logging.getLogger()
    root.handlers[:] = []
    configure(Log(config=str(path), level="warning"), io.StringIO())
    LOGGER.warning("shown")
    LOGGER.info("below --log-level, which the file does not set")
    root.handlers[0].close()
    assert log.read_text(encoding="utf-8") == "WARNING|devserver|shown\n"


def test_a_configuration_that_does_not_mention_us_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "logging.json"
    path.write_text('{"loggers": {"shop": {"level": "DEBUG"}}}', encoding="utf-8")
    logging.getLogger().handlers[:] = []

    def write() -> None:
        LOGGER.info("shown")
        AccessLog(Log())(CLIENT, "GET", b"/", "1.1", 200, 0.012)

    expected = 'devserver: shown\n127.0.0.1:51234 "GET / HTTP/1.1" 200 12 ms\n'
    assert written(Log(config=str(path)), write) == expected


def test_a_configuration_of_one_logger_leaves_the_other_to_us(tmp_path: Path) -> None:
    log = tmp_path / "own.log"
    path = tmp_path / "logging.json"
    loggers = {"devserver.access": {"handlers": ["own"], "propagate": False}}
    path.write_text(json.dumps({**AS_MAPPING, "loggers": loggers}).replace("FILE", log.as_posix()), "utf-8")
    logging.getLogger().handlers[:] = []

    def write() -> None:
        LOGGER.info("shown")
        ACCESS.info("request")

    assert written(Log(config=str(path)), write) == "devserver: shown\n"
    ACCESS.handlers[0].close()
    assert log.read_text(encoding="utf-8") == "INFO|devserver.access|request\n"


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("none.json", None, "No such file"),
        ("logging.json", "{", "JSONDecodeError"),
        ("logging.json", "[]", "TypeError"),
        (
            "logging.json",
            '{"handlers": {"own": {"class": "no.such.Class"}}}',
            "Unable to configure handler 'own'",
        ),
        ("logging.toml", "=", "TOMLDecodeError"),
        ("logging.ini", "[loggers]", ""),
        ("logging.ini", "\xe4", ""),
        ("logging.yaml", "a: b", "YAML is not read"),
    ],
)
def test_configurations_that_cannot_be_used(tmp_path: Path, name: str, text: str | None, reason: str) -> None:
    path = tmp_path / name
    if text is not None:
        path.write_text(text, encoding="latin-1")
    with pytest.raises(
        UsageError, match=f"--log-config .*{name} cannot be used .*{reason}.*\\.json or \\.toml"
    ):
        configure(Log(config=str(path)), io.StringIO())


# --- access lines ---


def access_line(*args: object, colors: bool = False) -> str:
    section = Log(colors=colors)
    return written(section, lambda: AccessLog(section)(*args)).rstrip("\n")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("client", "shown"),
    [
        (CLIENT, "127.0.0.1:51234"),
        (("::1", 1), "[::1]:1"),
        (None, "unix"),
        (("", None), "unix"),
        (("/run/a\nb", None), "/run/a\\x0ab"),
    ],
)
def test_clients(client: tuple[str, int | None] | None, shown: str) -> None:
    line = access_line(client, "GET", b"/path?q=%C3%A4%0A", "1.1", 200, 0.012)
    assert line == f'{shown} "GET /path?q=%C3%A4%0A HTTP/1.1" 200 12 ms'


def test_nothing_of_a_request_line_reaches_the_terminal_raw() -> None:
    every = bytes(range(256))
    line = access_line(CLIENT, every.decode("latin-1"), every, every.decode("latin-1"), 200, 0.012)
    assert line.isascii()
    assert line.isprintable()
    assert line.count('"') == 2


@pytest.mark.parametrize(
    "target", [b'/\xc3\xa4"\\x\r\n\x1b', b"/\xe9", b"/\t", b'/"', b"/\\", b"/%C3%A4?a=b"]
)
def test_escaped_targets_can_be_read_back(target: bytes) -> None:
    shown = re.search(r'"GET (.*) HTTP', access_line(CLIENT, "GET", target, "1.1", 200, 0.012))
    assert shown is not None
    assert shown[1].isascii()
    assert ast.literal_eval(f"b'{shown[1]}'") == target


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.00004, "0.0 ms"),
        (0.0094, "9.4 ms"),
        (0.0099, "10 ms"),
        (0.012, "12 ms"),
        (0.9996, "1.00 s"),
        (75.5, "75.50 s"),
    ],
)
def test_times(seconds: float, shown: str) -> None:
    assert access_line(CLIENT, "GET", b"/", "1.1", 200, seconds).endswith(f" 200 {shown}")


def test_the_status_has_a_colour_by_its_class() -> None:
    lines = [
        access_line(CLIENT, "GET", b"/", "1.1", status, 1, colors=True)
        for status in (101, 200, 302, 404, 500)
    ]
    colors = [re.search(r'" \x1b\[(\d+)m\d{3}\x1b\[0m', line) for line in lines]
    assert all(colors)
    assert len({each[1] for each in colors if each}) == 5
    assert "\x1b[" not in access_line(CLIENT, "GET", b"/", "1.1", 999, 1)


@pytest.mark.parametrize(
    ("section", "enabled"),
    [(Log(), True), (Log(access=False), False), (Log(level="warning"), False), (Log(level="trace"), True)],
)
def test_whether_requests_are_logged(section: Log, enabled: bool) -> None:
    stream = io.StringIO()
    configure(section, stream)
    access = AccessLog(section)
    assert access.enabled is enabled
    access(CLIENT, "GET", b"/", "1.1", 200, 0.012)
    assert bool(stream.getvalue()) is enabled


def test_a_record_has_the_values_apart() -> None:
    seen: list[logging.LogRecord] = []

    class Keeping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record)

    configure(Log(), io.StringIO())
    ACCESS.addHandler(Keeping())
    AccessLog(Log())(CLIENT, "GET", b"/", "1.1", 200, 0.012)
    assert seen[0].args == ("127.0.0.1:51234", "GET", "/", "1.1", 200, "12 ms")


def test_others_may_use_the_access_logger() -> None:
    assert written(Log(colors=True), lambda: ACCESS.info("%s\r", "own")) == "own\\x0d\n"


# --- banner ---


def test_banner() -> None:
    assert banner(["http://192.0.2.7:8000", "http://[::1]:8000"], "shop:app", True) == [
        "serving shop:app, restarting on save; Ctrl-C stops",
        "listening on http://192.0.2.7:8000",
        "listening on http://[::1]:8000",
    ]
    [line] = banner([], "shop:app", True, keys=True)
    assert line == "serving shop:app, restarting on save; h Enter lists keys; Ctrl-C stops"
    [line] = banner([], "shop:app", False, keys=True)
    assert line == "serving shop:app; add --reload to restart on save; Ctrl-C stops"
    assert banner([], "", True) == ["nothing to serve yet, waiting for it; Ctrl-C stops"]


@pytest.mark.parametrize(
    ("urls", "shown"),
    [
        (["http://127.0.0.1:8000", "http://[::1]:8000"], ["http://localhost:8000"]),
        (["http://127.0.0.1:1", "http://[::1]:2"], ["http://127.0.0.1:1", "http://[::1]:2"]),
        (["http://127.0.0.1:8000"], ["http://127.0.0.1:8000"]),
        (["http://[::1]:8000"], ["http://[::1]:8000"]),
        (["unix:/run/app.sock"], ["unix:/run/app.sock"]),
        (
            ["http://0.0.0.0:8000", "http://[::]:8000", "http://192.0.2.7:8000"],
            ["http://localhost:8000", "http://192.0.2.7:8000"],
        ),
    ],
)
def test_two_addresses_of_this_machine_are_one_url(urls: list[str], shown: list[str]) -> None:
    assert banner(urls, "shop:app", True)[1:] == [f"listening on {url}" for url in shown]


def test_editors_find_the_url_in_the_banner() -> None:
    def write() -> None:
        for line in banner(["http://[::1]:8000"], "shop:app", False):
            LOGGER.info(line)

    found = re.search(r"listening on (https?://\S+)", written(Log(colors=True), write))
    assert found is not None
    assert found[1] == "http://[::1]:8000"


def test_addresses_for_other_machines() -> None:
    assert lan_urls("127.0.0.1", 8000) == []
    assert lan_urls("localhost", 8000) == []
    for url in lan_urls("0.0.0.0", 8000, "https"):
        assert re.fullmatch(r"https://\d+\.\d+\.\d+\.\d+:8000", url)
        # It is an address of this machine: something can be bound there.
        socket.create_server((url[8:-5], 0)).close()
    for url in lan_urls("::", 8000):
        assert re.fullmatch(r"http://\[[0-9a-f:]+\]:8000", url)


# --- failures ---


def failure(tmp_path: Path, source: str, name: str = "shop.py") -> str:
    """What is shown when devserver runs this as a module of the user's."""
    path = tmp_path / name
    path.write_text(textwrap.dedent(source), encoding="utf-8")
    code = textwrap.dedent(f"""
        import asyncio, sys
        sys.path.insert(0, {str(tmp_path)!r})
        from devserver.app import load
        from devserver.config import App
        from devserver.console import format_failure
        try:
            load(App(target={path.stem!r}, app_dir={str(tmp_path)!r}))
        except BaseException as error:
            # In the server this frame is one of the package's.
            error.__traceback__ = error.__traceback__.tb_next
            sys.stdout.reconfigure(encoding="utf-8")
            sys.stdout.write(format_failure(error))
    """)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", timeout=DEADLINE, check=True
    )
    assert done.stderr == ""
    return done.stdout


def frames(text: str) -> list[tuple[str, str]]:
    return re.findall(r'^ *\|? *File ".*?([^/\\"\n]+)", line (\d+)', text, re.MULTILINE)


def test_a_failure_starts_at_the_users_code(tmp_path: Path) -> None:
    (tmp_path / "lib.py").write_text("def work():\n    1 / 0\n", encoding="utf-8")
    text = failure(tmp_path, "import lib\nlib.work()\n")
    assert frames(text) == [("shop.py", "2"), ("lib.py", "2")]
    assert text.startswith("Traceback (most recent call last):\n  File ")
    assert text.endswith("ZeroDivisionError: division by zero\n")


def test_frames_of_the_import_system_are_left_out(tmp_path: Path) -> None:
    text = failure(tmp_path, "import importlib\nimportlib.import_module('no_such_module')\n")
    assert frames(text) == [("shop.py", "2")]
    assert text.endswith("ModuleNotFoundError: No module named 'no_such_module'\n")


def test_a_syntax_error_shows_its_file_and_caret_alone(tmp_path: Path) -> None:
    text = failure(tmp_path, "x = 1\napp = (\n")
    assert frames(text) == [("shop.py", "2")]
    assert "    app = (\n" in text
    assert "^" in text
    assert text.endswith("SyntaxError: '(' was never closed\n")


def test_a_syntax_error_in_what_a_module_imports(tmp_path: Path) -> None:
    (tmp_path / "lib.py").write_text("def\n", encoding="utf-8")
    assert frames(failure(tmp_path, "import lib\n")) == [("shop.py", "1"), ("lib.py", "1")]


def test_chained_exceptions_are_cut_too(tmp_path: Path) -> None:
    source = """
        import importlib
        try:
            importlib.import_module('no_such_module')
        except ImportError as error:
            raise ValueError('no settings') from error
    """
    text = failure(tmp_path, source)
    assert frames(text) == [("shop.py", "4"), ("shop.py", "6")]
    assert "The above exception was the direct cause" in text


def test_groups(tmp_path: Path) -> None:
    source = """
        import importlib
        def fail():
            try:
                importlib.import_module('no_such_module')
            except ImportError as error:
                return error
        raise ExceptionGroup('two', [fail(), KeyError('b')])
    """
    text = failure(tmp_path, source)
    assert frames(text) == [("shop.py", "8"), ("shop.py", "5")]
    assert "two (2 sub-exceptions)" in text
    assert "KeyError: 'b'" in text


def test_what_carries_the_users_code_is_left_out(tmp_path: Path) -> None:
    # Here asyncio is called by the user, so it stays; only what stands before him goes.
    source = """
        import asyncio
        async def main():
            1 / 0
        asyncio.run(main())
    """
    names = [name for name, _ in frames(failure(tmp_path, source))]
    assert names[0] == names[-1] == "shop.py"
    assert "runners.py" in names


def test_notes_are_kept(tmp_path: Path) -> None:
    text = failure(tmp_path, "e = ValueError('a')\ne.add_note('remember')\nraise e\n")
    assert text.endswith("ValueError: a\nremember\n")


def ours(source: str) -> str:
    """What is shown when the package's own code runs this, and catches what it raises."""
    source = f"try:\n    {source}\nexcept Exception as error:\n    caught = error\n"
    namespace: dict[str, BaseException] = {}
    exec(compile(source, console.__file__, "exec"), namespace)
    return format_failure(namespace["caught"])


def test_without_a_frame_of_the_users_everything_is_kept() -> None:
    assert frames(ours("import json; json.loads('{')"))[0][0] == "console.py"
    assert frames(ours("import h11; h11.Request(method=b'', target=b'', headers=[])"))[0][0] == "console.py"


def test_an_error_of_ours_about_the_users_code_ends_there() -> None:
    # The frame that raises lies in the package, as that of `send` would.
    namespace: dict[str, object] = {"ApplicationError": ApplicationError}
    code = compile("def send(): raise ApplicationError('twice')", console.__file__, "exec")
    exec(code, namespace)
    send = namespace["send"]
    assert callable(send)
    with pytest.raises(ApplicationError) as caught:
        send()
    assert frames(format_failure(caught.value))[-1][0] == "test_console.py"

    namespace["ApplicationError"] = RuntimeError
    with pytest.raises(RuntimeError) as bug:
        send()
    assert frames(format_failure(bug.value))[-1][0] == "console.py"


class Unprintable(Exception):
    def __str__(self) -> str:
        raise SystemExit


class Hostile(Exception):
    def __getattribute__(self, name: str) -> object:
        if name.startswith("__") and name not in ("__class__", "__traceback__"):
            raise RuntimeError(name)
        return super().__getattribute__(name)


@pytest.mark.parametrize(
    ("error", "summary"),
    [
        (ValueError("out of cheese"), "ValueError: out of cheese"),
        (ValueError("\nout of cheese\nand of wine\n"), "ValueError: out of cheese"),
        (ValueError(), "ValueError"),
        (TargetError("no such thing; perhaps:\n  this one"), "no such thing; perhaps:\n  this one"),
    ],
)
def test_an_exception_in_a_line(error: Exception, summary: str) -> None:
    assert summarise(error) == summary


@pytest.mark.parametrize("kind", [Unprintable, Hostile])
def test_exceptions_that_resist(kind: type[Exception]) -> None:
    with pytest.raises(kind) as caught:
        raise kind("x")
    assert summarise(caught.value) in (kind.__name__, f"{kind.__name__}: x")
    text = format_failure(caught.value)
    assert kind.__name__ in text
    assert "test_console.py" in text
    assert text.endswith("\n")


def test_long_chains() -> None:
    error: Exception = ValueError("first")
    for _ in range(5000):
        after = ValueError("next")
        after.__context__ = error
        error = after
    assert "ValueError: next" in format_failure(error)


def test_recursion() -> None:
    def again() -> None:
        again()

    with pytest.raises(RecursionError) as caught:
        again()
    assert "more times]" in format_failure(caught.value)


def test_an_exception_that_was_never_raised() -> None:
    assert format_failure(ValueError("x")).endswith("ValueError: x\n")


def test_the_log_shows_failures_cut(tmp_path: Path) -> None:
    def write() -> None:
        try:
            1 / 0  # noqa: B018
        except ZeroDivisionError:
            LOGGER.exception("the application failed")

    text = written(Log(colors=False), write)
    assert text.startswith("devserver: error: the application failed\nTraceback (most recent call last):\n")
    assert text.endswith("ZeroDivisionError: division by zero\n")


@pytest.mark.unmeasured
def test_the_supervisor_stays_light() -> None:
    heavy = {"asyncio", "socket", "colorama", "logging.config", "tomllib", "click"}
    code = f"import sys, devserver.console, devserver.events; sys.exit(str({heavy} & set(sys.modules) or ''))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert done.stderr.strip() == ""
