"""What is told of a restart."""

import os

from devserver.events import Events
from devserver.reload.report import Report


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
