"""Real projects and packages: started, clicked through, edited, restarted.

A package that is not installed is skipped; CI installs what it can.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests.live.browser import Browser
from tests.live.polls import OURS, install, make, manage, replace, runserver
from tests.live.process import DevServer
from tests.patience import DEADLINE

pytestmark = pytest.mark.live

SETTINGS, URLS, VIEWS = "mysite/settings.py", "mysite/urls.py", "polls/views.py"

CHAT = """
from channels.generic.websocket import AsyncJsonWebsocketConsumer

class Chat(AsyncJsonWebsocketConsumer):
    async def connect(self):
        await self.channel_layer.group_add("room", self.channel_name)
        await self.accept()

    async def disconnect(self, code):
        await self.channel_layer.group_discard("room", self.channel_name)

    async def receive_json(self, content):
        await self.channel_layer.group_send("room", {"type": "say", "text": content["text"]})

    async def say(self, event):
        await self.send_json({"text": event["text"] + "!"})
"""

ROUTING = """
import os

from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application
from django.urls import path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
http = get_asgi_application()

from polls.consumers import Chat

application = ProtocolTypeRouter({
    "http": http,
    "websocket": AuthMiddlewareStack(URLRouter([path("ws/", Chat.as_asgi())])),
})
"""


def needs(name: str) -> None:
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")


def add(folder: Path, text: str) -> None:
    """Append to the settings."""
    path = folder / SETTINGS
    path.write_text(f"{path.read_text()}\n{text}\n")


def edited(server: DevServer, folder: Path, word: str) -> None:
    """An edit of a view is served."""
    path = folder / VIEWS
    replace(path, 'WORD = "', f'WORD = "{word} ')
    assert server.get("/polls/word/").text.startswith(word)


def test_the_tutorial(tmp_path: Path) -> None:
    with runserver(make(tmp_path)) as server, Browser(f"{server.listening()}/") as browser:
        server.serving()
        browser.get("/admin/")
        assert "Log in" in browser.page
        assert "Site administration" in browser.submit(username="admin", password="secret")
        browser.get("/admin/polls/question/1/change/")
        browser.submit(
            question_text="What's old?", pub_date_0="2026-01-01", pub_date_1="12:00:00", _save="Save"
        )
        assert "was changed successfully" in browser.page
        assert "What&#x27;s old?" in browser.get("/polls/")
        browser.get("/polls/1/")
        assert "Not much: 0 votes" in browser.page
        assert "Not much: 1 votes" in browser.submit("vote/", choice="1")
        edited(server, tmp_path, "two")
        assert "Site administration" in browser.get("/admin/")  # the session outlives the process
        assert server.get("/static/admin/css/base.css").status == 200


def channels(folder: Path, *apps: str) -> Path:
    make(folder, OURS, *apps, "channels")
    (folder / "polls/consumers.py").write_text(CHAT)
    (folder / "mysite/asgi.py").write_text(ROUTING)
    layers = "{'default': {'BACKEND': 'channels.layers.InMemoryChannelLayer'}}"
    add(folder, f"ASGI_APPLICATION = 'mysite.asgi.application'\nCHANNEL_LAYERS = {layers}")
    return folder


@pytest.mark.parametrize("apps", [[], ["daphne"]])
def test_channels(tmp_path: Path, apps: list[str]) -> None:
    for name in ("channels", *apps):
        needs(name)
    with runserver(channels(tmp_path, *apps)) as server:
        server.serving()
        assert ("leave daphne out of INSTALLED_APPS" in server.log) is bool(apps)
        url = f"{server.url.replace('http', 'ws')}/ws/"
        with connect(url) as one, connect(url) as two:
            one.send('{"text": "hello"}')
            assert two.recv(DEADLINE) == '{"text": "hello!"}'
            assert "green" in server.get("/static/polls/style.css").text
            replace(tmp_path / "polls/consumers.py", '"!"', '"?"')
            assert server.get("/polls/word/").text == "one"
        with connect(url) as one:
            one.send('{"text": "hello"}')
            assert one.recv(DEADLINE) == '{"text": "hello?"}'
        template = tmp_path / "polls/templates/polls/index.html"
        process = server.get("/polls/process/").text
        template.write_text("fresh")
        assert server.get("/polls/").text == "fresh"
        assert server.get("/polls/process/").text == process


def test_noasgi(tmp_path: Path) -> None:
    needs("channels")
    with runserver(channels(tmp_path), "--noasgi", "0") as server:
        server.serving()
        assert server.get("/ws/").status == 404  # Django's own, by WSGI
        assert server.get("/polls/word/").text == "one"


def test_rest_framework(tmp_path: Path) -> None:
    needs("rest_framework")
    make(tmp_path)
    install(tmp_path, "rest_framework")
    (tmp_path / "polls/api.py").write_text(
        "from rest_framework import routers, serializers, viewsets\n"
        "from .models import Question\n"
        "class QuestionSerializer(serializers.ModelSerializer):\n"
        "    class Meta:\n"
        "        model = Question\n"
        "        fields = ['id', 'question_text', 'pub_date']\n"
        "class QuestionViewSet(viewsets.ModelViewSet):\n"
        "    queryset = Question.objects.all()\n"
        "    serializer_class = QuestionSerializer\n"
        "router = routers.DefaultRouter()\n"
        "router.register('questions', QuestionViewSet)\n"
    )
    replace(
        tmp_path / URLS,
        "urlpatterns = [",
        "from polls.api import router\nurlpatterns = [path('api/', include(router.urls)), ",
    )
    with runserver(tmp_path) as server, Browser(f"{server.listening()}/") as browser:
        server.serving()
        assert "What&#x27;s new?" in browser.get("/api/questions/") or "What's new?" in browser.page
        assert "POST" in browser.page
        assert server.get("/static/rest_framework/css/default.css").status == 200
        browser.submit(question_text="Another?", pub_date="2026-01-01T12:00:00Z")
        assert browser.status == 201
        replace(tmp_path / "polls/api.py", "'id', ", "")
        assert '"id"' not in server.get("/api/questions/", Accept="application/json").text


def test_debug_toolbar(tmp_path: Path) -> None:
    needs("debug_toolbar")
    make(tmp_path)
    install(tmp_path, "debug_toolbar")
    replace(
        tmp_path / SETTINGS,
        "MIDDLEWARE = [",
        "MIDDLEWARE = ['debug_toolbar.middleware.DebugToolbarMiddleware',",
    )
    add(tmp_path, "INTERNAL_IPS = ['127.0.0.1']")
    replace(
        tmp_path / URLS,
        "urlpatterns = [",
        "from debug_toolbar.toolbar import debug_toolbar_urls\nurlpatterns = [*debug_toolbar_urls(), ",
    )
    (tmp_path / "polls/templates/polls/index.html").write_text("<body>page</body>")
    with runserver(tmp_path) as server:
        server.serving()
        assert "djDebug" in server.get("/polls/").text
        edited(server, tmp_path, "two")
        assert "djDebug" in server.get("/polls/").text


def test_whitenoise(tmp_path: Path) -> None:
    needs("whitenoise")
    make(tmp_path, OURS, "whitenoise.runserver_nostatic")
    replace(
        tmp_path / SETTINGS,
        "'django.middleware.security.SecurityMiddleware',",
        "'django.middleware.security.SecurityMiddleware', 'whitenoise.middleware.WhiteNoiseMiddleware',",
    )
    with runserver(tmp_path) as server:
        server.serving()
        answer = server.get("/static/polls/style.css")
        assert "green" in answer.text
        assert "max-age=0" in answer.headers["cache-control"]  # it was whitenoise
        edited(server, tmp_path, "two")


@pytest.mark.parametrize("restart", ["warm", "cold"])
def test_whitenoise_in_flask(restart: str, tmp_path: Path) -> None:
    """It keeps the size that each asset has at the start."""
    needs("whitenoise")
    (tmp_path / "static").mkdir()
    style = tmp_path / "static/style.css"
    style.write_text("a { color: green }")
    (tmp_path / "app.py").write_text(
        "from flask import Flask\nfrom whitenoise import WhiteNoise\napp = Flask(__name__)\n"
        "app.wsgi_app = WhiteNoise(app.wsgi_app, root='static', prefix='static/')\n"
    )
    with DevServer("app:app", "--reload", "--restart", restart, cwd=tmp_path) as server:
        server.serving()
        for text in ("a { color: darkgreen }", "a {}", "a { color: red; margin: 0 }"):
            style.write_text(text)
            assert server.get("/static/style.css").text == text
            server.restarted()


def test_browser_reload(tmp_path: Path) -> None:
    """Its stream tells of a template, and of a restart."""
    needs("django_browser_reload")
    make(tmp_path)
    install(tmp_path, "django_browser_reload")
    replace(
        tmp_path / SETTINGS,
        "MIDDLEWARE = [",
        "MIDDLEWARE = ['django_browser_reload.middleware.BrowserReloadMiddleware',",
    )
    replace(
        tmp_path / URLS,
        "urlpatterns = [",
        "urlpatterns = [path('__reload__/', include('django_browser_reload.urls')), ",
    )
    with runserver(tmp_path) as server:
        server.serving()
        process = server.get("/polls/process/").text
        with server.connect() as connection:
            connection.request("GET", "/__reload__/events/")
            stream = connection.getresponse()
            assert b"ping" in _event(stream)
            for name in ("templates/polls/index.html", "static/polls/style.css"):
                (tmp_path / "polls" / name).write_text(f"new {name}")
                while b"reload" not in (event := _event(stream)):
                    assert event, "the stream has ended"
        assert server.get("/polls/process/").text == process
        edited(server, tmp_path, "two")
        with server.connect() as connection:
            connection.request("GET", "/__reload__/events/")
            assert b"ping" in _event(connection.getresponse())


def test_tailwind(tmp_path: Path) -> None:
    """What its watcher builds is served without a restart, as is what its template tag makes of it."""
    needs("tailwind")
    make(tmp_path)
    install(tmp_path, "tailwind", "theme")
    add(tmp_path, "TAILWIND_APP_NAME = 'theme'\nINTERNAL_IPS = ['127.0.0.1']")
    styles = tmp_path / "theme/static/css/dist/styles.css"
    styles.parent.mkdir(parents=True)
    styles.write_text("body { color: red }")
    (tmp_path / "theme/__init__.py").touch()
    index = tmp_path / "polls/templates/polls/index.html"
    index.write_text("{% load tailwind_tags %}{% tailwind_css %}<h1>Polls</h1>")
    with runserver(tmp_path) as server:
        server.serving()
        process = server.get("/polls/process/").text
        assert "/static/css/dist/styles.css" in server.get("/polls/").text
        assert "red" in server.get("/static/css/dist/styles.css").text
        styles.write_text("body { color: green }")
        assert "green" in server.get("/static/css/dist/styles.css").text
        replace(index, "<h1>Polls", "<h1 class='font-bold'>Polls")
        assert "font-bold" in server.get("/polls/").text
        assert server.get("/polls/process/").text == process
        edited(server, tmp_path, "two")


def _event(stream: object) -> bytes:
    """The next event of a stream; empty at its end."""
    lines = []
    while line := stream.readline():  # type: ignore[attr-defined]
        lines.append(line)
        if line == b"\n":
            break
    return b"".join(lines)


@pytest.mark.timeout(180)
def test_wagtail(tmp_path: Path) -> None:
    needs("wagtail")
    start = [str(Path(sys.executable).parent / "wagtail"), "start", "mysite", "."]
    subprocess.run(start, cwd=tmp_path, check=True, timeout=DEADLINE, stdout=subprocess.DEVNULL)
    settings = tmp_path / "mysite/settings/base.py"
    replace(settings, "INSTALLED_APPS = [", 'INSTALLED_APPS = [\n    "devserver.django",')
    manage(tmp_path, "migrate", "-v0")
    create = "User.objects.create_superuser('admin', 'a@b.c', 'secret')"
    manage(tmp_path, "shell", text=f"from django.contrib.auth.models import User; {create}")
    with runserver(tmp_path) as server, Browser(f"{server.listening()}/") as browser:
        server.serving()
        assert "Welcome to your new Wagtail site" in browser.get("/")
        browser.get("/admin/")
        assert "Sign in" in browser.page
        assert "Dashboard" in browser.submit(username="admin", password="secret")
        pid = server.child
        template = tmp_path / "home/templates/home/home_page.html"
        template.write_text("{% load wagtailcore_tags %}fresh {{ page.title }}")
        assert "fresh Home" in browser.get("/")
        models = tmp_path / "home/models.py"
        models.write_text(models.read_text() + "\n    def word(self):\n        return 'two'\n")
        template.write_text("{{ page.word }}")
        assert server.restarted()["reason"].startswith("home/models.py changed")
        assert server.child != pid
        assert "two" in browser.get("/")
