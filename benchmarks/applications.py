"""The applications that the benchmarks serve, each written into a folder of its own.

All answer `GET /` with two tokens, one in a *leaf* module that holds nothing else, one in the body of the
*root* module, behind all its imports. A benchmark saves one of them anew and waits for it. What differs is
what a restart has to load: nothing, sixty routers, pandas, thirty Django applications.
Knows no servers and measures nothing.

    python benchmarks/applications.py fastapi_mid /tmp/shop      to look at one
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from string import Template

FIRST = "t0000"
"""The token that an application is written with."""

PLACES = ("leaf", "root")
"""Where it is edited."""

ROUTERS = 60
DJANGO_APPS = 30
MODELS = 5
"""In each of the Django applications."""


@dataclass(frozen=True)
class Project:
    """An application in a folder.

    Attributes:
        folder: the working directory for its server.
        leaf: the module that holds a token and nothing else.
        root: the module that imports all others, and has a token, too.
        asgi, wsgi: what a server is told to serve; "" when it cannot be served that way.
    """

    folder: Path
    leaf: Path
    root: Path
    asgi: str = ""
    wsgi: str = ""

    def save(self, token: str, place: str = "leaf") -> None:
        """Save the leaf or the root module with another token, in place, as most editors do."""
        module: Path = getattr(self, place)
        module.write_text(re.sub(r'(?m)^TOKEN = ".*"', f'TOKEN = "{token}"', module.read_text(), count=1))


def put(folder: Path, files: dict[str, str]) -> None:
    """Write files, given by their paths below a folder. What is there already keeps its bytecode."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != text.lstrip("\n"):
            path.write_text(text.lstrip("\n"))


LEAF = f'TOKEN = "{FIRST}"\n'

ASGI = '''
"""A bare ASGI callable."""
import leaf

TOKEN = "r0000"
BODY = f"{leaf.TOKEN} {TOKEN}".encode()
HEADERS = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(BODY))]


async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
    else:
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await send({"type": "http.response.body", "body": BODY})
'''

WSGI = '''
"""A bare WSGI callable."""
import leaf

TOKEN = "r0000"
BODY = f"{leaf.TOKEN} {TOKEN}".encode()
HEADERS = [("Content-Type", "text/plain"), ("Content-Length", str(len(BODY)))]


def application(environ, start_response):
    start_response("200 OK", HEADERS[:])
    return [BODY]
'''


def asgi(folder: Path) -> Project:
    """A bare ASGI callable and its leaf."""
    put(folder, {"main.py": ASGI, "leaf.py": LEAF})
    return Project(folder, folder / "leaf.py", folder / "main.py", asgi="main:application")


def wsgi(folder: Path) -> Project:
    """A bare WSGI callable and its leaf."""
    put(folder, {"main.py": WSGI, "leaf.py": LEAF})
    return Project(folder, folder / "leaf.py", folder / "main.py", wsgi="main:application")


def widen(project: Project, modules: int) -> None:
    """Have a bare application import so many more modules, which all belong to its watch set."""
    names = [f"part{number}" for number in range(modules)]
    put(project.folder / "parts", {f"{name}.py": f'NAME = "{name}"\n' for name in names})
    put(project.folder / "parts", {"__init__.py": "".join(f"from parts import {name}\n" for name in names)})
    main = project.folder / "main.py"
    main.write_text(main.read_text().replace("import leaf", "import parts\nimport leaf", 1))


ROUTER = Template("""
from fastapi import APIRouter, HTTPException
from pydantic import BaseModel
from sqlalchemy import ForeignKey, String, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from shop.database import Base, engine

router = APIRouter(prefix="/things$n", tags=["things$n"])


class Thing$n(Base):
    __tablename__ = "things$n"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(80))
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("things$n.id"))


class New$n(BaseModel):
    name: str
    parent_id: int | None = None


class Shown$n(New$n):
    id: int
    labels: list[str] = []


@router.get("/", response_model=list[Shown$n])
def every():
    with Session(engine) as session:
        return [Shown$n(id=t.id, name=t.name) for t in session.scalars(select(Thing$n))]


@router.get("/{number}", response_model=Shown$n)
def one(number: int):
    with Session(engine) as session:
        thing = session.get(Thing$n, number)
    if thing is None:
        raise HTTPException(404)
    return Shown$n(id=thing.id, name=thing.name)


@router.post("/", response_model=Shown$n, status_code=201)
def add(new: New$n):
    with Session(engine) as session:
        thing = Thing$n(**new.model_dump())
        session.add(thing)
        session.commit()
        return Shown$n(id=thing.id, name=thing.name)
""")

FASTAPI = """
$FIRST
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse

from shop import routers
from shop.database import Base, engine
from shop import leaf

TOKEN = "r0000"

app = FastAPI()
for router in routers.ALL:
    app.include_router(router)
Base.metadata.create_all(engine)


@app.get("/", response_class=PlainTextResponse)
def token() -> str:
    return f"{leaf.TOKEN} {TOKEN}"
"""

DATABASE = """
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.pool import StaticPool

engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})


class Base(DeclarativeBase):
    pass
"""


def fastapi(folder: Path, routers: int = ROUTERS, first: str = "") -> Project:
    """FastAPI with sixty routers, each with a table, three schemas' worth of models and three views.

    Args:
        first: what the root module imports before anything else.
    """
    names = [f"things{number}" for number in range(routers)]
    put(
        folder / "shop",
        {
            "__init__.py": "",
            "database.py": DATABASE,
            "leaf.py": LEAF,
            "main.py": FASTAPI.replace("$FIRST\n", first),
            "routers/__init__.py": "".join(f"from shop.routers import {name}\n" for name in names)
            + f"\nALL = [{', '.join(f'{name}.router' for name in names)}]\n",
            **{f"routers/things{n}.py": ROUTER.substitute(n=n) for n in range(routers)},
        },
    )
    return Project(folder, folder / "shop" / "leaf.py", folder / "shop" / "main.py", asgi="shop.main:app")


def heavy(folder: Path) -> Project:
    """The same with a third of the routers, behind pandas and scikit-learn."""
    return fastapi(
        folder, ROUTERS // 3, "import pandas\nimport sklearn.ensemble\nimport sklearn.linear_model\n"
    )


SETTINGS = """
import os
from pathlib import Path

BASE_DIR = Path(__file__).parent.parent
SECRET_KEY = "only for measuring"
DEBUG = True
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "site1.urls"
WSGI_APPLICATION = "site1.wsgi.application"
# What brings a `runserver` of its own goes first; daphne's wants to know an ASGI application.
FIRST = os.environ.get("BENCH_APPS", "").split()
if "daphne" in FIRST:
    ASGI_APPLICATION = "site1.asgi.application"
INSTALLED_APPS = [
    *FIRST,
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    $MORE
    *[f"part{number}" for number in range(%d)],
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db.sqlite3"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
STATIC_URL = "static/"
"""

URLS = """
from django.contrib import admin
from django.http import HttpResponse
from django.urls import include, path

import leaf

TOKEN = "r0000"


def token(request):
    return HttpResponse(f"{leaf.TOKEN} {TOKEN}", content_type="text/plain")


urlpatterns = [
    path("", token),
    path("admin/", admin.site.urls),
    $MORE
    *[path(f"part{number}/", include(f"part{number}.urls")) for number in range(%d)],
]
"""

GATEWAY = Template("""
import os

from django.core.$kind import get_${kind}_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site1.settings")
application = get_${kind}_application()
""")

MANAGE = """
import os
import sys

from django.core.management import execute_from_command_line

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site1.settings")
execute_from_command_line(sys.argv)
"""

MODEL = Template("""

class Record$n(models.Model):
    title = models.CharField(max_length=80)
    amount = models.DecimalField(max_digits=9, decimal_places=2, default=0)
    made = models.DateTimeField(auto_now_add=True)
    follows = models.ForeignKey("self", null=True, blank=True, on_delete=models.SET_NULL)
""")

PART_ADMIN = """
from django.apps import apps
from django.contrib import admin

for model in apps.get_app_config(__package__).get_models():
    admin.site.register(model, list_display=["title", "amount"], search_fields=["title"])
"""

PART_FORMS = """
from django import forms
from django.apps import apps

FORMS = [
    forms.modelform_factory(model, fields=["title", "amount"])
    for model in apps.get_app_config(__package__).get_models()
]
"""

PART_VIEWS = Template("""
from django.views.generic import CreateView, DetailView, ListView

from $name import forms, models

VIEWS = [
    (kind.__name__.lower(), kind.as_view(model=form.Meta.model, **more))
    for form in forms.FORMS
    for kind, more in [(ListView, {}), (DetailView, {}), (CreateView, {"fields": ["title"]})]
]
COUNT = len(models.__dict__)
""")

PART_URLS = Template("""
from django.urls import path

from $name import views

app_name = "$name"
urlpatterns = [path(f"{at}/{name}/<int:pk>/", view) for at, (name, view) in enumerate(views.VIEWS)]
""")


PART_API = Template("""
from rest_framework import routers, serializers, viewsets

from $name import models

router = routers.SimpleRouter()


def view_of(model):
    meta = type("Meta", (), {"model": model, "fields": "__all__"})
    serializer = type(f"{model.__name__}Serializer", (serializers.ModelSerializer,), {"Meta": meta})
    attributes = {"queryset": model.objects.all(), "serializer_class": serializer}
    return type(f"{model.__name__}View", (viewsets.ModelViewSet,), attributes)


for number in range(%d):
    router.register(f"record{number}", view_of(getattr(models, f"Record{number}")))
""")


def _part(name: str) -> dict[str, str]:
    models = "from django.db import models\n" + "".join(MODEL.substitute(n=n) for n in range(MODELS))
    return {
        f"{name}/__init__.py": "",
        f"{name}/models.py": models,
        f"{name}/admin.py": PART_ADMIN,
        f"{name}/forms.py": PART_FORMS,
        f"{name}/views.py": PART_VIEWS.substitute(name=name),
        f"{name}/urls.py": PART_URLS.substitute(name=name),
    }


def django(folder: Path, more_apps: str = "", more_urls: str = "") -> Project:
    """A Django project of thirty applications with five models each, their forms, views and admin pages."""
    put(
        folder,
        {
            "leaf.py": LEAF,
            "manage.py": MANAGE,
            "site1/__init__.py": "",
            "site1/settings.py": SETTINGS.replace("$MORE", more_apps) % DJANGO_APPS,
            "site1/urls.py": URLS.replace("$MORE", more_urls) % DJANGO_APPS,
            "site1/asgi.py": GATEWAY.substitute(kind="asgi"),
            "site1/wsgi.py": GATEWAY.substitute(kind="wsgi"),
        },
    )
    for number in range(DJANGO_APPS):
        put(folder, _part(f"part{number}"))
    return Project(
        folder,
        folder / "leaf.py",
        folder / "site1" / "urls.py",
        asgi="site1.asgi:application",
        wsgi="site1.wsgi:application",
    )


def django_big(folder: Path) -> Project:
    """The same with REST framework: a serializer and a view set for each model."""
    api = '*[path(f"api{n}/", include(import_module(f"part{n}.api").router.urls)) for n in range(%d)],'
    project = django(folder, '"rest_framework",', api % DJANGO_APPS)
    for number in range(DJANGO_APPS):
        put(folder, {f"part{number}/api.py": PART_API.substitute(name=f"part{number}") % MODELS})
    urls = folder / "site1" / "urls.py"
    urls.write_text("from importlib import import_module\n\n" + urls.read_text().lstrip())
    return project


APPLICATIONS: dict[str, Callable[[Path], Project]] = {
    "tiny": asgi,
    "tiny_wsgi": wsgi,
    "fastapi_mid": fastapi,
    "heavy": heavy,
    "django": django,
    "django_big": django_big,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Write one of the benchmarks' applications into a folder.")
    parser.add_argument("name", choices=APPLICATIONS)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    project = APPLICATIONS[arguments.name](arguments.folder)
    for interface in ("asgi", "wsgi"):
        if target := getattr(project, interface):
            print(f"{interface}: {target}")


if __name__ == "__main__":
    main()
