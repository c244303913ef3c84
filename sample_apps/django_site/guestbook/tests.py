"""The guest book's own tests: `manage.py test`."""

import importlib
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

from django.test import AsyncClient, SimpleTestCase, TestCase, override_settings
from django.urls import clear_url_caches
from mysite import urls, wsgi

from guestbook.models import Entry


class GuestBook(TestCase):
    def sign(self, **fields: str):
        return self.client.post("/", fields, follow=True)

    def test_a_signed_entry_is_kept_and_shown(self) -> None:
        self.assertContains(self.client.get("/"), "Nobody yet")
        self.assertContains(self.sign(name="Ada", message="Hello"), "<b>Ada</b>")
        assert str(Entry.objects.get()) == "Ada: Hello"

    def test_the_latest_comes_first(self) -> None:
        self.sign(name="Ada", message="first")
        page = self.sign(name="Bob", message="second").content.decode()
        assert page.index("second") < page.index("first")

    def test_what_is_wrong_is_said_and_not_kept(self) -> None:
        self.assertContains(self.sign(name="", message="Hello"), "This field is required")
        self.assertContains(self.sign(name="Ada", message="x" * 281), "at most 280 characters")
        assert not Entry.objects.exists()

    def test_markup_is_shown_and_not_obeyed(self) -> None:
        self.assertContains(self.sign(name="Ada", message="<script>"), "&lt;script&gt;")


class Callables(TestCase):
    def test_wsgi_keeps_the_rules(self) -> None:
        environ = {"QUERY_STRING": "", "SCRIPT_NAME": "", "PATH_INFO": "/", "HTTP_HOST": "testserver"}
        setup_testing_defaults(environ)
        status: list[str] = []
        body = validator(wsgi.application)(environ, lambda line, *_: status.append(line))
        page = b"".join(body)
        body.close()
        assert status == ["200 OK"]
        assert b"Nobody yet" in page

    async def test_asgi_answers(self) -> None:
        self.assertContains(await AsyncClient().get("/"), "Nobody yet")


@override_settings(DEBUG=True)
class StaticFiles(SimpleTestCase):
    """Served with DEBUG only, which the test runner turns off before the addresses are looked up."""

    def setUp(self) -> None:
        importlib.reload(urls)
        clear_url_caches()

    def test_the_style_sheet_is_served(self) -> None:
        sheet = self.client.get("/static/guestbook/style.css")
        assert sheet["Content-Type"] == "text/css"
        assert b"article" in sheet.getvalue()
