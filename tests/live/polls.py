"""The poll site of Django's tutorial, made by Django's own `startproject` and `startapp`.

`manage.py runserver` in it is devserver, or Django's own where a test holds both against each other.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.live.process import DevServer
from tests.once import once
from tests.patience import DEADLINE

MODELS = """
from django.db import models

class Question(models.Model):
    question_text = models.CharField(max_length=200)
    pub_date = models.DateTimeField("date published")

    def __str__(self):
        return self.question_text

class Choice(models.Model):
    question = models.ForeignKey(Question, on_delete=models.CASCADE)
    choice_text = models.CharField(max_length=200)
    votes = models.IntegerField(default=0)

    def __str__(self):
        return self.choice_text
"""

VIEWS = """
import os

from django.db.models import F
from django.http import HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.views import generic

from .models import Choice, Question

WORD = "one"

class IndexView(generic.ListView):
    template_name = "polls/index.html"
    context_object_name = "questions"

    def get_queryset(self):
        return Question.objects.order_by("-pub_date")[:5]

class DetailView(generic.DetailView):
    model = Question
    template_name = "polls/detail.html"

def vote(request, question_id):
    question = get_object_or_404(Question, pk=question_id)
    question.choice_set.filter(pk=request.POST["choice"]).update(votes=F("votes") + 1)
    return HttpResponseRedirect(reverse("polls:detail", args=(question.id,)))

def word(request):
    return HttpResponse(WORD)

def process(request):
    return HttpResponse(os.getpid())
"""

POLLS_URLS = """
from django.urls import path

from . import views

app_name = "polls"
urlpatterns = [
    path("", views.IndexView.as_view(), name="index"),
    path("<int:pk>/", views.DetailView.as_view(), name="detail"),
    path("<int:question_id>/vote/", views.vote, name="vote"),
    path("word/", views.word, name="word"),
    path("process/", views.process, name="process"),
]
"""

URLS = """
from django.contrib import admin
from django.urls import include, path

urlpatterns = [path("polls/", include("polls.urls")), path("admin/", admin.site.urls)]
"""

ADMIN = """
from django.contrib import admin

from .models import Choice, Question

admin.site.register([Question, Choice])
"""

INDEX = """{% load static %}<link rel="stylesheet" href="{% static 'polls/style.css' %}">
<h1>Polls</h1>
{% for question in questions %}<a href="{% url 'polls:detail' question.id %}">{{ question }}</a>{% endfor %}
"""

DETAIL = """<form action="{% url 'polls:vote' question.id %}" method="post">{% csrf_token %}
{% for choice in question.choice_set.all %}<input type="radio" name="choice" value="{{ choice.id }}">
{{ choice.choice_text }}: {{ choice.votes }} votes{% endfor %}<input type="submit"></form>
"""

FILL = """
from django.contrib.auth.models import User
from django.utils import timezone
from polls.models import Question

User.objects.create_superuser("admin", "admin@example.com", "secret")
question = Question.objects.create(question_text="What's new?", pub_date=timezone.now())
question.choice_set.create(choice_text="Not much")
"""

OURS = "devserver.django"


def manage(folder: Path, *arguments: str, text: str = "") -> str:
    """Run a command of manage.py. Returns what it printed."""
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=folder,
        check=True,
        timeout=DEADLINE,
        input=text,
        capture_output=True,
        text=True,
    )
    return done.stdout


def _make(folder: Path) -> None:
    """The site, migrated and filled."""
    start = [sys.executable, "-m", "django", "startproject", "mysite", "."]
    subprocess.run(start, cwd=folder, check=True, timeout=DEADLINE)
    manage(folder, "startapp", "polls")
    polls = folder / "polls"
    for name in ("templates/polls", "static/polls"):
        (polls / name).mkdir(parents=True)
    for path, text in {
        polls / "models.py": MODELS,
        polls / "views.py": VIEWS,
        polls / "urls.py": POLLS_URLS,
        polls / "admin.py": ADMIN,
        polls / "templates/polls/index.html": INDEX,
        polls / "templates/polls/detail.html": DETAIL,
        polls / "static/polls/style.css": "h1 { color: green }",
        folder / "mysite/urls.py": URLS,
    }.items():
        path.write_text(text)
    replace(folder / "mysite/settings.py", "INSTALLED_APPS = [", 'INSTALLED_APPS = [\n    "polls",')
    manage(folder, "makemigrations", "polls")
    manage(folder, "migrate", "-v0")
    manage(folder, "shell", text=FILL)


def make(folder: Path, *apps: str) -> Path:
    """Copy the site into a folder. Returns that.

    Args:
        apps: come first in INSTALLED_APPS; `OURS` unless there are others.
    """
    make_stock(folder)
    install(folder, *(apps or (OURS,)))
    return folder


def make_stock(folder: Path) -> Path:
    """Copy the site into a folder, without us. Returns that."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(once("polls", _make), folder, dirs_exist_ok=True, ignore=ignored)
    return folder


def install(folder: Path, *apps: str) -> None:
    """Put applications first in INSTALLED_APPS."""
    names = "".join(f"\n    {name!r}," for name in apps)
    replace(folder / "mysite/settings.py", "INSTALLED_APPS = [", f"INSTALLED_APPS = [{names}")


def replace(path: Path, old: str, new: str) -> None:
    """Save a file with something else in it."""
    text = path.read_text()
    assert old in text, f"{path.name}: {old!r} is not there"
    path.write_text(text.replace(old, new, 1))


def runserver(folder: Path, *arguments: str, **more: Any) -> DevServer:
    """`manage.py runserver` with devserver, on a free port unless there is one among the arguments."""
    address = [] if any(re.fullmatch(r"[^-].*", word) for word in arguments) else ["0"]
    command = [sys.executable, "manage.py", "runserver"]
    return DevServer(*arguments, *address, cwd=folder, command=command, **more)


class Stock:
    """`manage.py runserver` as Django has it, for comparison; with `--noreload` it is one process."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        command = [sys.executable, "-u", "manage.py", "runserver", *arguments]
        environ = {name: value for name, value in os.environ.items() if name != "RUN_MAIN"}
        self.process = subprocess.Popen(
            command, cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.lines: list[str] = []

    def __enter__(self) -> Stock:
        return self

    def __exit__(self, *ignored: object) -> None:
        self.process.terminate()
        self.process.communicate(timeout=DEADLINE)

    def until(self, text: str) -> str:
        """Read what is printed until a line has a text in it. Returns all of it so far."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if text in line:
                return "".join(self.lines)
        raise AssertionError("".join(self.lines))
