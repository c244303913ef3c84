"""A small project for each framework that is restarted warm, with edits of its leaves and of its root.

Each is served by what `/` answers: the JSON of `probe.state()`, in which is what the framework knows of the
project: registries, schemas, whether a class is the one that its module has. A fresh process that
imports the same modules must say the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

Edit = tuple[str, str, str]
"""A file, what is replaced in it, and by what. Without the first the second is appended to; a file that is
not there is made, and one that is replaced by nothing at all is removed."""

EARLY = "import os\n\nPID = os.getpid()\n"

ANSWER = """
import json
import os

import early
import probe

def text():
    return json.dumps({"state": probe.state(), "kept": early.PID != os.getpid()})
"""

WSGI = """
import early
IMPORTS
import answer

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    return [answer.text().encode()]
"""


@dataclass(frozen=True)
class Framework:
    """A project.

    Attributes:
        needs: what must be installed.
        files: their texts, by path.
        edits: one after the other; each leads to another answer.
        imports: what a fresh process imports before it asks for the state.
        barrier: what stands in the way of a checkpoint when all is loaded, as the log says it.
    """

    needs: str
    files: dict[str, str]
    edits: tuple[Edit, ...]
    target: str = "main:app"
    imports: str = "main"
    barrier: str = ""

    def make(self, folder: Path) -> None:
        """Write it into a folder."""
        for name, text in {"early.py": EARLY, "answer.py": ANSWER, **self.files}.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.lstrip("\n"))


def apply(folder: Path, edit: Edit) -> None:
    """Save an edit."""
    name, old, new = edit
    path = folder / name
    if not old and not new:
        path.unlink()
    elif not old:
        text = path.read_text() if path.exists() else ""
        path.write_text(text + new)
    else:
        text = path.read_text()
        assert old in text, (name, old)
        path.write_text(text.replace(old, new))


FASTAPI = Framework(
    "fastapi",
    {
        "schemas.py": """
from pydantic import BaseModel

class Owner(BaseModel):
    name: str

class Item(BaseModel):
    number: int
    owner: Owner | None = None
""",
        "items.py": """
from typing import Annotated

from fastapi import APIRouter, Depends

import schemas

router = APIRouter(prefix="/items", tags=["items"])

def limit(limit: int = 10) -> int:
    return limit

@router.get("/{number}", response_model=schemas.Item)
async def one(number: int, limit: Annotated[int, Depends(limit)]) -> schemas.Item:
    "One of them."
    return schemas.Item(number=number)
""",
        "main.py": """
import early
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse

import items

app = FastAPI(title="first")
app.include_router(items.router)

import answer

@app.get("/", response_class=PlainTextResponse)
async def index() -> str:
    return answer.text()
""",
        "probe.py": """
import items, schemas

def state():
    import main
    return {
        "schema": main.app.openapi(),
        "fields": {kind.__name__: list(kind.model_fields) for kind in (schemas.Item, schemas.Owner)},
        "same": items.router.routes[0].response_model is schemas.Item,
    }
""",
    },
    (
        ("items.py", "One of them.", "One item."),
        ("items.py", "One item.", "Just one item."),
        ("main.py", '"first"', '"second"'),
        ("schemas.py", "number: int\n", "number: int\n    price: float = 0.5\n"),
    ),
)

STARLETTE = Framework(
    "starlette",
    {
        "pages.py": """
from starlette.endpoints import HTTPEndpoint
from starlette.responses import PlainTextResponse
from starlette.routing import Route

class Page(HTTPEndpoint):
    word = "one"

    async def get(self, request):
        return PlainTextResponse(self.word)

routes = [Route("/page", Page, name="page")]
""",
        "main.py": """
import early
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

import pages

SIZE = 500

import answer

async def index(request):
    return PlainTextResponse(answer.text())

app = Starlette(
    routes=[Route("/", index), Mount("/pages", routes=pages.routes)],
    middleware=[Middleware(GZipMiddleware, minimum_size=SIZE)],
)
""",
        "probe.py": """
import pages

def state():
    import main
    mount = main.app.routes[1]
    return {
        "routes": [route.path for route in main.app.routes],
        "word": mount.routes[0].endpoint.word,
        "methods": sorted(vars(mount.routes[0].endpoint)),
        "same": mount.routes[0].endpoint is pages.Page,
        "url": str(main.app.url_path_for("page")) if not mount.name else "",
        "size": main.app.user_middleware[0].kwargs["minimum_size"],
    }
""",
    },
    (
        ("pages.py", '"one"', '"two"'),
        ("pages.py", '"two"', '"three"'),
        ("main.py", "SIZE = 500", "SIZE = 600"),
    ),
)

LITESTAR = Framework(
    "litestar",
    {
        "things.py": """
from dataclasses import dataclass

from litestar import Controller, get

@dataclass
class Thing:
    number: int

class Things(Controller):
    path = "/things"

    @get("/{number:int}", summary="one")
    async def one(self, number: int) -> Thing:
        return Thing(number)
""",
        "main.py": """
import early
from litestar import Litestar, get
from litestar.openapi.config import OpenAPIConfig

import things
import answer

TITLE = "first"

@get("/", media_type="text/plain", sync_to_thread=False)
def index() -> str:
    return answer.text()

app = Litestar([index, things.Things], openapi_config=OpenAPIConfig(title=TITLE, version="1"))
""",
        "probe.py": """
import things

def state():
    import main
    return {
        "schema": main.app.openapi_schema.to_schema(),
        "routes": sorted(route.path for route in main.app.routes),
        "same": things.Things.one.fn.__globals__["Thing"] is things.Thing,
    }
""",
    },
    (
        ("things.py", 'summary="one"', 'summary="two"'),
        ("things.py", 'summary="two"', 'summary="three"'),
        ("main.py", '"first"', '"second"'),
        ("things.py", "number: int\n\n", "number: int\n    name: str = ''\n\n"),
    ),
    barrier="a thread",  # that of its QueueListener for logging
)

FLASK = Framework(
    "flask",
    {
        "blog.py": """
from flask import Blueprint, render_template_string

blueprint = Blueprint("blog", __name__, url_prefix="/blog")

@blueprint.app_template_filter()
def loud(text):
    return text.upper() + "!"

@blueprint.get("/<int:number>")
def post(number):
    return "one"
""",
        "main.py": """
import early
from flask import Flask, render_template_string

import blog

app = Flask(__name__)
app.register_blueprint(blog.blueprint)
app.config["WORD"] = "first"

import answer

@app.before_request
def note():
    pass

@app.get("/")
def index():
    return answer.text()
""",
        "probe.py": """
from flask import render_template_string

import blog

def state():
    import main
    with main.app.test_request_context("/blog/1"):
        rendered = render_template_string("{{ 'a' | loud }} {{ url_for('blog.post', number=2) }}")
    return {
        "rules": sorted(
            (rule.rule, rule.endpoint, sorted(rule.methods)) for rule in main.app.url_map.iter_rules()
        ),
        "answer": main.app.view_functions["blog.post"](1),
        "rendered": rendered,
        "same": main.app.view_functions["blog.post"] is blog.post,
        "hooks": len(main.app.before_request_funcs[None]),
        "word": main.app.config["WORD"],
    }
""",
    },
    (
        ("blog.py", '"one"', '"two"'),
        ("blog.py", '"two"', '"three"'),
        ("main.py", '"first"', '"second"'),
        ("blog.py", '"!"', '"?"'),
    ),
)

_SETTINGS = """
import early
SECRET_KEY = "only for tests"
DEBUG = True
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "site1.urls"
INSTALLED_APPS = [
    "django.contrib.admin", "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions",
    "django.contrib.messages", "MORE", "shop",
]
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
LANGUAGE_CODE = "en"
"""

_DJANGO = {
    "site1/__init__.py": "",
    "site1/settings.py": _SETTINGS.replace(' "MORE",', ""),
    "site1/urls.py": """
from django.contrib import admin
from django.http import HttpResponse
from django.urls import include, path

import answer

def index(request):
    return HttpResponse(answer.text())

urlpatterns = [
    path("", index),
    path("admin/", admin.site.urls),
    path("shop/", include("shop.urls")),
]
""",
    "site1/wsgi.py": """
import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site1.settings")
application = get_wsgi_application()
""",
    "shop/__init__.py": "",
    "shop/models.py": """
from django.db import models
from django.db.models.signals import post_init

class Owner(models.Model):
    name = models.CharField(max_length=40)

class Item(models.Model):
    title = models.CharField(max_length=40)
    owner = models.ForeignKey(Owner, on_delete=models.CASCADE, related_name="items")

def note(sender, **named):
    pass

post_init.connect(note, sender=Item, dispatch_uid="shop.note")
""",
    "shop/admin.py": """
from django.contrib import admin

from shop import models

@admin.register(models.Item)
class ItemAdmin(admin.ModelAdmin):
    list_display = ["title"]

admin.site.register(models.Owner)
""",
    "shop/views.py": """
from django.views.generic import ListView

from shop import models

WORD = "one"

class Items(ListView):
    model = models.Item
""",
    "shop/urls.py": """
from django.urls import path

from shop import views

app_name = "shop"
urlpatterns = [path("items/", views.Items.as_view(), name="items")]
""",
    "probe.py": """
from django.apps import apps
from django.contrib import admin
from django.db.models.signals import post_init
from django.urls import reverse

from shop import models, views

def state():
    return {
        "fields": {
            kind._meta.label: sorted(each.name for each in kind._meta.get_fields())
            for kind in apps.get_models()
        },
        "admin": sorted(
            (kind._meta.label, type(shown).__qualname__, list(shown.list_display))
            for kind, shown in admin.site._registry.items()
        ),
        "registered": models.Item in admin.site._registry,
        "same": apps.get_model("shop.Item") is models.Item is views.Items.model,
        "related": models.Owner.items.rel.related_model is models.Item,
        "receivers": len(post_init.receivers),
        "urls": [reverse("shop:items"), reverse("admin:shop_item_changelist")],
        "word": views.WORD,
    }
""",
}

_DJANGO_EDITS = (
    ("shop/views.py", '"one"', '"two"'),
    ("shop/views.py", '"two"', '"three"'),
    ("shop/admin.py", '["title"]', '["title", "owner"]'),
    (
        "shop/models.py",
        "class Item(models.Model):\n",
        "class Item(models.Model):\n    price = models.FloatField()\n",
    ),
    ("site1/urls.py", 'path("shop/"', 'path("shops/"'),
    ("site1/settings.py", 'LANGUAGE_CODE = "en"', 'INSTALLED_APPS.remove("django.contrib.sessions")'),
)

DJANGO = Framework(
    "django", _DJANGO, _DJANGO_EDITS, target="site1.wsgi:application", imports="site1.wsgi, site1.urls"
)

REST = Framework(
    "rest_framework",
    {
        **_DJANGO,
        "site1/settings.py": _SETTINGS.replace("MORE", "rest_framework"),
        "shop/api.py": """
from rest_framework import routers, serializers, viewsets

from shop import models

class ItemSerializer(serializers.ModelSerializer):
    class Meta:
        model = models.Item
        fields = ["id", "title"]

class ItemView(viewsets.ModelViewSet):
    queryset = models.Item.objects.all()
    serializer_class = ItemSerializer

router = routers.DefaultRouter()
router.register("items", ItemView)
""",
        "shop/urls.py": """
from django.urls import include, path

from shop import api, views

app_name = "shop"
urlpatterns = [path("items/", views.Items.as_view(), name="items"), path("api/", include(api.router.urls))]
""",
        "probe.py": _DJANGO["probe.py"]
        .replace(
            '        "word":',
            '        "serialized": list(api.ItemSerializer().fields),\n'
            '        "api": [str(url.pattern) for url in api.router.urls],\n'
            '        "word":',
        )
        .replace("from shop import models, views", "from shop import api, models, views"),
    },
    (
        ("shop/api.py", '["id", "title"]', '["id", "title", "owner"]'),
        ("shop/api.py", '["id", "title", "owner"]', '["id", "owner"]'),
        *_DJANGO_EDITS,
    ),
    target="site1.wsgi:application",
    imports="site1.wsgi, site1.urls",
)

PANDAS = Framework(
    "pandas",
    {
        "sales.csv": "day,sold\n1,10\n2,20\n",
        "report.py": """
import pandas
import early

TABLE = pandas.read_csv("sales.csv").set_index("day")
""",
        "sums.py": """
import report

FACTOR = 2
SUMS = (report.TABLE["sold"] * FACTOR).cumsum()
""",
        "main.py": WSGI.replace("IMPORTS", "import report\nimport sums\nNAME = 'first'"),
        "probe.py": """
import pandas, report, sums

def state():
    import main
    return {
        "sums": sums.SUMS.to_dict(), "rows": len(report.TABLE), "name": main.NAME,
        "option_types": [str(kind) for kind in report.TABLE.dtypes],
        "same": type(report.TABLE) is pandas.DataFrame,
    }
""",
    },
    (
        ("sums.py", "FACTOR = 2", "FACTOR = 3"),
        ("sums.py", "FACTOR = 3", "FACTOR = 4"),
        ("sales.csv", "", "3,30\n"),
        ("main.py", "'first'", "'second'"),
    ),
)

SQLALCHEMY = Framework(
    "sqlalchemy",
    {
        "base.py": """
import sqlalchemy.orm
import early

class Base(sqlalchemy.orm.DeclarativeBase):
    pass

engine = sqlalchemy.create_engine("sqlite:///shop.db")
""",
        "tables.py": """
from __future__ import annotations

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column, relationship

from base import Base

class Owner(Base):
    __tablename__ = "owners"
    id: Mapped[int] = mapped_column(primary_key=True)
    items: Mapped[list[Item]] = relationship(back_populates="owner")

class Item(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(40))
    owner_id: Mapped[int] = mapped_column(ForeignKey("owners.id"))
    owner: Mapped[Owner] = relationship(back_populates="items")
""",
        "queries.py": """
from sqlalchemy import select
from sqlalchemy.orm import configure_mappers

import tables

configure_mappers()
QUERY = select(tables.Item).join(tables.Item.owner).where(tables.Item.id > 1)
""",
        "main.py": WSGI.replace("IMPORTS", "import base\nimport queries\nNAME = 'first'"),
        "probe.py": """
import base, queries, tables

def state():
    import main
    return {
        "tables": {
            name: [repr(column) for column in table.columns]
            for name, table in base.Base.metadata.tables.items()
        },
        "classes": sorted(mapper.class_.__name__ for mapper in base.Base.registry.mappers),
        "query": str(queries.QUERY),
        "same": tables.Owner.items.property.mapper.class_ is tables.Item,
        "name": main.NAME,
    }
""",
    },
    (
        ("queries.py", "> 1", "< 7"),
        ("queries.py", "< 7", "== 7"),
        ("tables.py", "String(40)", "String(50)"),
        ("main.py", "'first'", "'second'"),
    ),
)

PYDANTIC = Framework(
    "pydantic",
    {
        "shapes.py": """
from __future__ import annotations

from typing import Annotated, Generic, Literal, TypeVar, Union

import early
from pydantic import BaseModel, Field, TypeAdapter, computed_field, field_validator

class Circle(BaseModel):
    kind: Literal["circle"] = "circle"
    radius: float

class Group(BaseModel):
    kind: Literal["group"] = "group"
    members: list[Shape] = []

Shape = Annotated[Union[Circle, Group], Field(discriminator="kind")]
Group.model_rebuild()
SHAPES = TypeAdapter(list[Shape])
""",
        "pages.py": """
from typing import Generic, TypeVar

from pydantic import BaseModel, field_validator

import shapes

T = TypeVar("T")

class Page(BaseModel, Generic[T]):
    entries: list[T]
    size: int = 10

    @field_validator("size")
    @classmethod
    def at_most(cls, size):
        return min(size, 100)

Shapes = Page[shapes.Group]
""",
        "main.py": WSGI.replace("IMPORTS", "import pages\nNAME = 'first'"),
        "probe.py": """
import pages, shapes

def state():
    import main
    made = shapes.SHAPES.validate_python([{"kind": "group", "members": [{"kind": "circle", "radius": 2}]}])
    return {
        "schemas": [kind.model_json_schema() for kind in (shapes.Group, pages.Shapes)],
        "made": [each.model_dump() for each in made],
        "same": type(made[0].members[0]) is shapes.Circle and pages.Page[shapes.Group] is pages.Shapes,
        "below": sorted(kind.__name__ for kind in pages.Page.__subclasses__()),
        "size": pages.Shapes(entries=[], size=1000).size,
        "name": main.NAME,
    }
""",
    },
    (
        ("pages.py", "100", "200"),
        ("pages.py", "200", "300"),
        ("main.py", "'first'", "'second'"),
        ("shapes.py", "radius: float", "radius: float = 1.5"),
    ),
)

JINJA2 = Framework(
    "jinja2",
    {
        "templates/base.html": "<title>{% block title %}{% endblock %}</title>",
        "templates/page.html": "{% extends 'base.html' %}{% block title %}{{ 'one' | loud }}{% endblock %}",
        "filters.py": "def loud(text):\n    return text.upper() + '!'\n",
        "pages.py": """
import early
import jinja2

import filters

pages = jinja2.Environment(loader=jinja2.FileSystemLoader("templates"), autoescape=True)
pages.filters["loud"] = filters.loud
PAGE = pages.get_template("page.html")
""",
        "main.py": WSGI.replace("IMPORTS", "import pages\nNAME = 'first'"),
        "probe.py": """
import pages

def state():
    import main
    return {
        "page": pages.PAGE.render(), "filters": sorted(pages.pages.filters), "name": main.NAME,
        "same": pages.PAGE is pages.pages.get_template("page.html"),
    }
""",
    },
    (
        ("templates/page.html", "one", "two"),
        ("templates/page.html", "two", "three"),
        ("main.py", "'first'", "'second'"),
        ("filters.py", "'!'", "'?'"),
    ),
)

CELERY = Framework(
    "celery",
    {
        "worker.py": """
import early
import celery

queue = celery.Celery("shop", broker="memory://", backend="cache+memory://")
queue.conf.task_always_eager = True
queue.conf.beat_schedule = {"tidy": {"task": "tasks.tidy", "schedule": 60.0}}
""",
        "tasks.py": """
from celery import shared_task, signals

from worker import queue

@queue.task(bind=True, max_retries=3)
def tidy(self, number=1):
    return f"one {number}"

@shared_task
def add(a, b):
    return a + b

@signals.task_success.connect
def note(sender=None, **named):
    pass
""",
        "main.py": WSGI.replace("IMPORTS", "import tasks\nNAME = 'first'"),
        "probe.py": """
from celery import signals

import tasks, worker

def state():
    import main
    return {
        "tasks": sorted(worker.queue.tasks),
        "done": [tasks.tidy.apply([2]).get(), tasks.add.apply([1, 2]).get()],
        "same": worker.queue.tasks["tasks.tidy"].run.__globals__ is vars(tasks),
        "receivers": len(signals.task_success.receivers),
        "retries": tasks.tidy.max_retries,
        "beat": worker.queue.conf.beat_schedule["tidy"]["schedule"],
        "name": main.NAME,
    }
""",
    },
    (
        ("tasks.py", 'f"one', 'f"two'),
        ("tasks.py", 'f"two', 'f"three'),
        ("tasks.py", "", "\n@queue.task\ndef late():\n    pass\n"),
        ("main.py", "'first'", "'second'"),
        ("worker.py", "60.0", "30.0"),
    ),
)

ATTRS = Framework(
    "attrs",
    {
        "kinds.py": """
import attrs
import early

REGISTRY = {}

@attrs.define
class Kind:
    name: str = attrs.field(validator=attrs.validators.instance_of(str))

    def __init_subclass__(cls, **named):
        REGISTRY[cls.__name__] = cls
""",
        "birds.py": """
import attrs

import kinds

@attrs.define(slots=True)
class Bird(kinds.Kind):
    wings: int = attrs.field(default=2, converter=int)

@attrs.frozen
class Duck(Bird):
    sound: str = "one"

Goose = attrs.make_class("Goose", {"size": attrs.field(factory=int)}, bases=(kinds.Kind,))
""",
        "main.py": WSGI.replace("IMPORTS", "import birds\nNAME = 'first'"),
        "probe.py": """
import attrs, birds, kinds

def state():
    import main
    duck = birds.Duck("donald", "2")
    return {
        "fields": {name: [each.name for each in attrs.fields(kind)] for name, kind in kinds.REGISTRY.items()},
        "duck": attrs.asdict(duck), "name": main.NAME,
        "same": kinds.REGISTRY["Duck"] is birds.Duck and isinstance(duck, kinds.Kind),
        "below": [kind.__name__ for kind in kinds.Kind.__subclasses__()],
    }
""",
    },
    (
        ("birds.py", '"one"', '"two"'),
        ("birds.py", '"two"', '"three"'),
        ("main.py", "'first'", "'second'"),
        ("kinds.py", "name: str", "tag: str = attrs.field(default='', kw_only=True)\n    name: str"),
    ),
)

_LOADER = """
import early
import importlib
import pkgutil

import plugins

REGISTRY = {}

def plugin(made):
    REGISTRY[made.__name__] = made
    return made
"""

PKGUTIL = Framework(
    "pkgutil",
    {
        "registry.py": _LOADER,
        "plugins/__init__.py": "",
        "plugins/first.py": "import registry\n\n@registry.plugin\ndef first():\n    return 'one'\n",
        "plugins/last.py": "from registry import plugin\n\n@plugin\ndef last():\n    return 'last'\n",
        "main.py": WSGI.replace(
            "IMPORTS",
            "import decimal, fractions, unittest.mock\n"
            "import registry\n"
            "for each in registry.pkgutil.iter_modules(registry.plugins.__path__, 'plugins.'):\n"
            "    registry.importlib.import_module(each.name)\n"
            "NAME = 'first'",
        ),
        "probe.py": """
import registry, sys

def state():
    import main
    return {
        "said": {name: made() for name, made in registry.REGISTRY.items()}, "name": main.NAME,
        "same": all(
            vars(sys.modules[made.__module__])[name] is made for name, made in registry.REGISTRY.items()
        ),
        "modules": sorted(name for name in sys.modules if name.startswith("plugins")),
    }
""",
    },
    (
        ("plugins/last.py", "'last'", "'two'"),
        ("plugins/last.py", "'two'", "'three'"),
        ("plugins/middle.py", "", "import registry\n\n@registry.plugin\ndef middle():\n    return 'new'\n"),
        ("plugins/first.py", "'one'", "'four'"),
        ("main.py", "'first'", "'second'"),
        ("plugins/middle.py", "", ""),
    ),
)

ENTRY_POINTS = Framework(
    "importlib.metadata",
    {
        "demo-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n",
        "demo-1.0.dist-info/entry_points.txt": "[shop.plugins]\none = parts.one:run\ntwo = parts.two:run\n",
        "parts/__init__.py": "",
        "parts/one.py": "def run():\n    return 'one'\n",
        "parts/two.py": "def run():\n    return 'two'\n",
        "parts/three.py": "def run():\n    return 'three'\n",
        "found.py": """
import early
from importlib import metadata

PLUGINS = {each.name: each.load() for each in metadata.entry_points(group="shop.plugins")}
""",
        "main.py": WSGI.replace(
            "IMPORTS", "import decimal, fractions, unittest.mock\nimport found\nNAME = 'first'"
        ),
        "probe.py": """
import found, sys

def state():
    import main
    return {
        "said": {name: made() for name, made in found.PLUGINS.items()}, "name": main.NAME,
        "same": all(sys.modules[made.__module__].run is made for made in found.PLUGINS.values()),
        "version": found.metadata.version("demo"),
    }
""",
    },
    (
        ("parts/two.py", "'two'", "'four'"),
        ("parts/two.py", "'four'", "'five'"),
        ("main.py", "'first'", "'second'"),
        ("parts/one.py", "'one'", "'six'"),
        ("demo-1.0.dist-info/entry_points.txt", "", "three = parts.three:run\n"),
    ),
)

FRAMEWORKS = {
    "fastapi": FASTAPI,
    "starlette": STARLETTE,
    "litestar": LITESTAR,
    "flask": FLASK,
    "django": DJANGO,
    "rest framework": REST,
    "pandas": PANDAS,
    "sqlalchemy": SQLALCHEMY,
    "pydantic": PYDANTIC,
    "jinja2": JINJA2,
    "celery": CELERY,
    "attrs": ATTRS,
    "pkgutil": PKGUTIL,
    "entry points": ENTRY_POINTS,
}
