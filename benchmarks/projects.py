"""How long saves take in projects of many frameworks: the first, the second, and one that mends a failure.

Each project has a module that holds a word, one that uses it, and the application of a framework, as its own
documentation begins. It is started with `--reload`, the word is saved twice, then something that cannot be
compiled, then a word again. What is timed is from a save to the answer with the new word. A framework that is
not installed is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import report
from subject import environment, free_port

LIMIT = 120.0
"""Seconds that a start may take."""


@dataclass(frozen=True)
class Framework:
    """A project.

    Attributes:
        packages: distributions that it needs, the framework first.
        files: their texts, by name; `words.py` and `pages.py` come to them.
        target: what is served.
        path: where the word is.
    """

    packages: Sequence[str]
    files: Mapping[str, str]
    target: str = "app:app"
    path: str = "/"


DJANGO = """
from django.conf import settings
from django.core.handlers.{kind} import {handler}
from django.http import HttpResponse
from django.urls import include, path
import django

settings.configure(
    DEBUG=True, ALLOWED_HOSTS=["*"], SECRET_KEY="only for measuring", ROOT_URLCONF=__name__,
    INSTALLED_APPS={apps}, MIDDLEWARE={middleware}, STATIC_URL="static/", INTERNAL_IPS=["127.0.0.1"],
    DATABASES={{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}}}},
    TEMPLATES=[{{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}}],
    **{more},
)
django.setup()
import pages
{imports}
urlpatterns = [path("", lambda request: HttpResponse(pages.text())), {urls}]
application = {handler}()
"""

CONTRIB = ["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions",
           "django.contrib.messages", "django.contrib.staticfiles"]  # fmt: skip


def _django(
    apps: Sequence[str],
    middleware: Sequence[str] = (),
    urls: str = "",
    imports: str = "",
    kind: str = "wsgi",
    **more: object,
) -> dict[str, str]:
    handler = {"wsgi": "WSGIHandler", "asgi": "ASGIHandler"}[kind]
    text = DJANGO.format(
        kind=kind, handler=handler, apps=[*CONTRIB, *apps], middleware=list(middleware), urls=urls,
        imports=imports, more=more,
    )  # fmt: skip
    return {"app.py": text}


FRAMEWORKS: dict[str, Framework] = {
    "Flask, blueprints": Framework(
        ["flask"],
        {
            "app.py": """
from flask import Flask
from shop import shop
app = Flask(__name__)
app.register_blueprint(shop)
""",
            "shop.py": """
from flask import Blueprint
import pages
shop = Blueprint('shop', __name__)
@shop.get('/')
def index():
    return pages.text()
""",
        },
    ),
    "Flask, WhiteNoise": Framework(
        ["flask", "whitenoise"],
        {
            "app.py": """
from flask import Flask
from whitenoise import WhiteNoise
import pages
app = Flask(__name__)
app.wsgi_app = WhiteNoise(app.wsgi_app, root='.')
@app.get('/')
def index():
    return pages.text()
""",
        },
    ),
    "FastAPI, SQLModel": Framework(
        ["fastapi", "sqlmodel"],
        {
            "app.py": """
from fastapi import FastAPI
from sqlmodel import Field, Session, SQLModel, create_engine, select
import pages
class Hero(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str
engine = create_engine('sqlite:///heroes.db')
app = FastAPI()
@app.on_event('startup')
def start():
    SQLModel.metadata.create_all(engine)
@app.get('/')
def index():
    with Session(engine) as session:
        return pages.text(), len(session.exec(select(Hero)).all())
""",
        },
    ),
    "SQLAdmin": Framework(
        ["sqladmin", "starlette", "greenlet"],
        {
            "app.py": """
from sqladmin import Admin, ModelView
from sqlalchemy import Column, Integer, String, create_engine
from sqlalchemy.orm import declarative_base
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
import pages
Base = declarative_base()
engine = create_engine('sqlite:///users.db')
class User(Base):
    __tablename__ = 'users'
    id = Column(Integer, primary_key=True)
    name = Column(String)
Base.metadata.create_all(engine)
app = Starlette()
app.add_route('/', lambda request: PlainTextResponse(pages.text()))
admin = Admin(app, engine)
class UserAdmin(ModelView, model=User):
    column_list = [User.id, User.name]
admin.add_view(UserAdmin)
""",
        },
    ),
    "Litestar": Framework(
        ["litestar"],
        {
            "app.py": """
from litestar import Litestar, get
import pages
@get('/', sync_to_thread=False)
def index() -> str:
    return pages.text()
app = Litestar([index])
""",
        },
    ),
    "Quart": Framework(
        ["quart"],
        {
            "app.py": """
from quart import Quart
import pages
app = Quart(__name__)
@app.get('/')
async def index():
    return pages.text()
""",
        },
    ),
    "Sanic": Framework(
        ["sanic"],
        {
            "app.py": """
from sanic import Sanic, text
import pages
app = Sanic('shop')
@app.get('/')
async def index(request):
    return text(pages.text())
""",
        },
    ),
    "CherryPy": Framework(
        ["cherrypy"],
        {
            "app.py": """
import cherrypy
import pages
class Shop:
    @cherrypy.expose
    def index(self):
        return pages.text()
app = cherrypy.Application(Shop(), '')
""",
        },
    ),
    "Bottle": Framework(
        ["bottle"],
        {
            "app.py": """
from bottle import Bottle
import pages
app = Bottle()
@app.get('/')
def index():
    return pages.text()
""",
        },
    ),
    "Falcon": Framework(
        ["falcon"],
        {
            "app.py": """
import falcon.asgi
import pages
class Shop:
    async def on_get(self, req, resp):
        resp.text = pages.text()
app = falcon.asgi.App()
app.add_route('/', Shop())
""",
        },
    ),
    "Pyramid": Framework(
        ["pyramid"],
        {
            "app.py": """
from pyramid.config import Configurator
from pyramid.response import Response
import pages
with Configurator() as config:
    config.add_route('index', '/')
    config.add_view(lambda request: Response(pages.text()), route_name='index')
    app = config.make_wsgi_app()
""",
        },
    ),
    "Dash": Framework(
        ["dash"],
        {
            "app.py": """
from dash import Dash, html
import pages
dash = Dash(__name__)
dash.layout = html.Div(pages.text())
app = dash.server
""",
        },
        path="/_dash-layout",
    ),
    "NiceGUI": Framework(
        ["nicegui"],
        {
            "app.py": """
from fastapi import FastAPI
from nicegui import ui
import pages
app = FastAPI()
@ui.page('/')
def index():
    ui.label(pages.text())
ui.run_with(app)
""",
        },
    ),
    "Gradio": Framework(
        ["gradio"],
        {
            "app.py": """
import gradio as gr
from fastapi import FastAPI
import pages
demo = gr.Interface(lambda name: name, 'text', 'text', title=pages.text())
app = gr.mount_gradio_app(FastAPI(), demo, path='/')
""",
        },
    ),
    "FastMCP": Framework(
        ["fastmcp", "starlette"],
        {
            "app.py": """
from fastmcp import FastMCP
from starlette.responses import PlainTextResponse
import pages
mcp = FastMCP('shop')
@mcp.tool
def word() -> str:
    return pages.text()
@mcp.custom_route('/', methods=['GET'])
async def index(request):
    return PlainTextResponse(pages.text())
app = mcp.http_app()
""",
        },
    ),
    "Strawberry": Framework(
        ["strawberry-graphql"],
        {
            "app.py": """
import strawberry
from strawberry.asgi import GraphQL
import pages
@strawberry.type
class Query:
    @strawberry.field
    def word(self) -> str:
        return pages.text()
app = GraphQL(strawberry.Schema(Query))
""",
        },
        path="/?query=%7Bword%7D",
    ),
    "python-socketio": Framework(
        ["python-socketio", "starlette"],
        {
            "app.py": """
import socketio
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
import pages
sio = socketio.AsyncServer(async_mode='asgi')
@sio.event
async def connect(sid, environ): ...
base = Starlette()
base.add_route('/', lambda request: PlainTextResponse(pages.text()))
app = socketio.ASGIApp(sio, base)
""",
        },
    ),
    "Datasette": Framework(
        ["datasette"],
        {
            "app.py": """
import sqlite3
from datasette.app import Datasette
import pages
sqlite3.connect('shop.db').execute('create table if not exists words (word)')
app = Datasette(['shop.db'], metadata={'title': pages.text()}).app()
""",
        },
    ),
    "Django, REST framework, toolbar, browser-reload": Framework(
        ["django", "djangorestframework", "django-debug-toolbar", "django-browser-reload"],
        _django(
            ["rest_framework", "debug_toolbar", "django_browser_reload"],
            [
                "debug_toolbar.middleware.DebugToolbarMiddleware",
                "django_browser_reload.middleware.BrowserReloadMiddleware",
            ],
            "path('bar/', include('debug_toolbar.urls')), path('r/', include('django_browser_reload.urls'))",
            "from rest_framework import routers, serializers, viewsets",
        ),
        "app:application",
    ),
    "Django, Channels, daphne": Framework(
        ["django", "channels", "daphne"],
        _django(
            ["daphne", "channels"],
            kind="asgi",
            imports="from channels.routing import ProtocolTypeRouter",
            ASGI_APPLICATION="app.application",
        ),
        "app:application",
    ),
    "Wagtail": Framework(
        ["wagtail", "django"],
        _django(
            [
                "wagtail",
                "wagtail.admin",
                "wagtail.users",
                "wagtail.documents",
                "wagtail.images",
                "wagtail.search",
                "wagtail.sites",
                "wagtail.contrib.forms",
                "modelcluster",
                "taggit",
            ],
            urls="path('admin/', include('wagtail.admin.urls'))",
            WAGTAIL_SITE_NAME="shop",
            WAGTAILADMIN_BASE_URL="http://localhost",
        ),
        "app:application",
    ),
}
"""What is measured."""


class Times(NamedTuple):
    """Seconds; and what went otherwise than it should."""

    start: float
    first: float
    second: float
    mending: float
    fault: str = ""


def measure(framework: Framework, folder: Path) -> Times:
    """Start, save, break and mend a project.

    Raises:
        RuntimeError: it was not served; with the end of what was printed.
    """
    for name, text in framework.files.items():
        (folder / name).write_text(text.lstrip())
    (folder / "pages.py").write_text("from words import WORD\n\ndef text():\n    return WORD\n")
    word = folder / "words.py"
    word.write_text("WORD = 'word-zero'\n")
    port, log = free_port(), folder.with_suffix(".log")
    command = [sys.executable, "-m", "devserver", framework.target, "--reload", "--port", str(port)]
    began = time.perf_counter()
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=folder, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=environment()
        )
    try:
        start = _until(port, framework.path, "word-zero", began)
        times = []
        for number in ("one", "two"):
            began = time.perf_counter()
            word.write_text(f"WORD = 'word-{number}'\n")
            times.append(_until(port, framework.path, f"word-{number}", began))
            time.sleep(1)  # a person reads the page; and what can wait is done meanwhile
        word.write_text("WORD = (\n")
        status, text = _ask(port, framework.path)
        fault = "" if status == 500 and "was never closed" in text else f"the failure was not shown: {status}"
        time.sleep(1)
        began = time.perf_counter()
        word.write_text("WORD = 'word-three'\n")
        return Times(start, *times, _until(port, framework.path, "word-three", began), fault)
    except TimeoutError:
        raise RuntimeError(log.read_text(errors="replace")[-2000:]) from None
    finally:
        process.terminate()
        process.wait(30)


def _ask(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT)
    with contextlib.closing(connection):
        connection.request("GET", path, headers={"Connection": "close"})
        response = connection.getresponse()
        return response.status, response.read().decode("utf-8", "replace")


def _until(port: int, path: str, word: str, began: float) -> float:
    while time.perf_counter() - began < LIMIT:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if word in _ask(port, path)[1]:
                return time.perf_counter() - began
        time.sleep(0.01)
    raise TimeoutError(word)


def missing(framework: Framework) -> list[str]:
    """The packages that are not installed."""
    absent = []
    for package in framework.packages:
        try:
            metadata.version(package)
        except metadata.PackageNotFoundError:
            absent.append(package)
    return absent


def main() -> None:
    """Measure what is installed, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default="", help="names of projects, or parts of them, with commas between")
    wanted = [name.strip().lower() for name in parser.parse_args().only.split(",") if name.strip()]
    print(report.setting())
    print("| Project | first start | first save | second save | save that mends |\n|---|---|---|---|---|")
    for name, framework in FRAMEWORKS.items():
        if wanted and not any(each in name.lower() for each in wanted):
            continue
        absent = missing(framework)
        if absent:
            print(f"| {name} | not measured: {', '.join(absent)} not installed | | | |")
            continue
        with tempfile.TemporaryDirectory() as work:
            folder = Path(work, "project")
            folder.mkdir()
            try:
                times = measure(framework, folder)
            except RuntimeError as error:
                print(f"| {name} | failed | | | |\n\n{error}\n")
                continue
        versions = ", ".join(f"{package} {metadata.version(package)}" for package in framework.packages)
        cells = " | ".join(f"{seconds:.2f} s" for seconds in times[:4])
        print(f"| {name} ({versions}) | {cells} |{f' {times.fault}' if times.fault else ''}", flush=True)


if __name__ == "__main__":
    main()
