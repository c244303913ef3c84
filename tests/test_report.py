"""What is told of a restart."""

import logging
import os

import pytest

from devserver.events import Events
from devserver.process.standing import GUARD, Standing
from devserver.reload.report import SLOW_RESTART, SLOW_START, Report, slow


def test_reason_names_the_first_file_and_counts_those_that_followed() -> None:
    """A load that a change overtook is begun again; what changed before that is a reason all the same."""
    report = Report(Events(None))
    report.changed([os.path.abspath("views.py")], line=3)
    report.changed(["/elsewhere/a.html", os.path.abspath("views.py")], line=8)
    assert report.reason == "views.py changed and 1 more"
    report.serving(1, 1, 0.0)
    report.changed(["/elsewhere/a.html"])
    assert report.reason == "/elsewhere/a.html changed"


def test_what_the_application_is_asked_about_is_no_reason_of_a_later_restart() -> None:
    report = Report(Events(None))
    report.suspects([os.path.abspath("a.html"), "b.html"])
    assert report.reason == "a.html changed and 1 more"
    report.changed(["views.py"])
    assert report.reason == "views.py changed"


def test_a_first_load_that_takes_long_says_where_it_stands(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    report = Report(Events(None))
    assert report.deadlines() == []
    report.begins(None, "")
    report.spawned(1)
    [due] = report.deadlines()
    stands = Standing(
        [("<frozen importlib._bootstrap>", 1), (os.__file__, 2), (os.path.abspath("shop.py"), 3)]
    )
    report.be_punctual(due - 0.1, lambda: ("/shop/models.py", stands))
    assert caplog.messages == []
    report.be_punctual(due, lambda: ("/shop/models.py", stands))
    assert caplog.messages == ["still loading: shop.py, line 3"]
    assert report.deadlines() == [], "it is said once"


@pytest.mark.parametrize(
    ("stands", "told"),
    [
        (Standing(), " (/shop/models.py was read last)"),
        (Standing([(os.__file__, 2)]), " (/shop/models.py was read last)"),
        (
            Standing([("/shop/app.py", 9)], ["127.0.0.1:5000", "[::1]:5000"]),
            f": /shop/app.py, line 9; it serves by itself, on 127.0.0.1:5000 and [::1]:5000: {GUARD}",
        ),
    ],
)
def test_where_a_load_stands_that_takes_longer_than_requests_wait(stands: Standing, told: str) -> None:
    assert slow(31, "/shop/models.py", stands, False)["error"] == f"still loading after 31 s{told}"


def test_a_restart_that_takes_long_says_what_it_is_for(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    report = Report(Events(None))
    report.changed([os.path.abspath("views.py")], line=3)
    report.begins(None, "")
    report.spawned(2)
    report.be_punctual(report.since + SLOW_RESTART, lambda: ("", Standing()))
    assert caplog.messages == ["views.py changed at line 3: restarting …"]
    report.be_punctual(report.since + SLOW_START, lambda: ("", Standing([("/shop/models.py", 7)])))
    assert caplog.messages[1:] == ["still loading: /shop/models.py, line 7"]
    report.spawned(3)
    report.serving(3, 1, 0.0)
    assert report.deadlines() == [], "what serves is not told to be restarting"


@pytest.mark.parametrize(
    ("error", "last", "lines"),
    [
        ("ValueError: 3", "ValueError: 3", 2),
        ("SyntaxError: '{' was never closed (app.py, line 1)", "SyntaxError: '{' was never closed", 2),
        ("NameError: name 'a' is not defined", "NameError: name 'a' is not defined. Did you mean: 'b'?", 2),
        ("the application called sys.exit(1)", "SystemExit: 1", 3),
    ],
)
def test_the_line_of_an_error_is_not_said_again_behind_its_traceback(
    error: str, last: str, lines: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    trace = f'Traceback (most recent call last):\n  File "app.py", line 1, in <module>\n{last}\n'
    Report(Events(None)).failed(1, {"phase": "load", "error": error, "traceback": trace})
    assert len(caplog.messages) == lines
    assert caplog.messages[0].endswith(last)


@pytest.mark.parametrize(
    ("error", "trace", "shown"),
    [
        ("E: x", "Traceback…\nE: x\n", ["Traceback…\nE: x"]),
        ("no app\n  perhaps b", "", ["no app\n  perhaps b"]),
        ("it was ended by SIGSEGV", "Fatal Python error", ["Fatal Python error", "it was ended by SIGSEGV"]),
    ],
)
def test_a_failure_is_told_once_with_what_led_to_it(
    error: str, trace: str, shown: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    report = Report(Events(None))
    failure = {"phase": "load", "error": error, "traceback": trace}
    assert report.failed(1, failure)
    assert caplog.messages == [*shown, "the start failed; waiting for a change"]
    caplog.clear()
    report.changed([os.path.abspath("views.py")])
    assert not report.failed(2, failure)
    assert caplog.messages == ["views.py changed: it failed in the same way; waiting for a change"]
    caplog.clear()
    assert report.failed(3, {**failure, "error": f"{error}!"})
    assert caplog.messages[-1] == "views.py changed: the restart failed; waiting for a change"
