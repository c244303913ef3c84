"""Which interface an application has: real frameworks, and look-alikes of those not at hand."""

import functools
from collections.abc import Callable
from typing import Any

import pytest

from devserver.errors import TargetError
from devserver.interface import check_factory, classify

pytestmark = pytest.mark.interpreter

# --- plain callables ---


def wsgi_function(environ, start_response):
    return []


def wsgi_function_other_names(request, respond):
    return []


def wsgi_with_default(environ, start_response, extra=None):
    return []


async def asgi_function(scope, receive, send): ...


async def asgi_with_default(scope, receive, send, extra=None): ...


async def asgi_any(*args, **kwargs): ...


def asgi_plain(s, r, w):
    """Not async itself, but what it returns can be awaited."""
    return asgi_function(s, r, w)


def asgi2_function(scope):
    async def instance(receive, send): ...

    return instance


def double(scope, receive=None, send=None):
    return asgi_function(scope, receive, send)


class Asgi2Class:
    def __init__(self, scope): ...

    async def __call__(self, receive, send): ...


class Asgi2PlainClass:
    def __init__(self, anything): ...

    def __call__(self, receive, send): ...


class AwaitedClass:
    """Starlette's HTTPEndpoint has this form."""

    def __init__(self, scope, receive, send): ...

    def __await__(self): ...


class IteratedClass:
    """PEP 3333's `AppClass`."""

    def __init__(self, environ, start_response): ...

    def __iter__(self): ...


# --- objects: look-alikes of frameworks that the test extra does not bring ---


class Wsgi:
    """Bottle and Pyramid's Router: `__call__(self, environ, start_response)`."""

    def __call__(self, environ, start_response): ...

    def method(self, environ, start_response): ...

    @staticmethod
    def static(environ, start_response): ...


class FalconWsgi:
    def __call__(self, env, start_response): ...


class FalconAsgi(FalconWsgi):
    """Falcon's ASGI application inherits from the WSGI one."""

    async def __call__(self, scope, receive, send): ...  # type: ignore[override]


class Asgi:
    """Litestar, Quart, asgiref's WsgiToAsgi: `async __call__(self, scope, receive, send)`."""

    async def __call__(self, scope, receive, send): ...

    async def method(self, scope, receive, send): ...


class AsgiPlainCall:
    def __call__(self, scope, receive, send):
        return asgi_function(scope, receive, send)


class AsgiAnyCall:
    async def __call__(self, *args): ...


class Middleware:
    def __init__(self, app):
        self.app = app

    def __call__(self, *args, **kwargs):
        return self.app(*args, **kwargs)


# --- decorators ---


def wrapping(app):
    @functools.wraps(app)
    def wrapper(*args, **kwargs):
        return app(*args, **kwargs)

    return wrapper


def wrapping_silently(app):
    def wrapper(*args, **kwargs):
        return app(*args, **kwargs)

    return wrapper


def wrapping_async(app):
    @functools.wraps(app)
    async def wrapper(*args, **kwargs): ...

    return wrapper


def adapting(app):
    """Looks through `__wrapped__` like WSGI, but is called like ASGI."""

    @functools.wraps(app)
    async def wrapper(scope, receive, send): ...

    return wrapper


class Descriptor:
    """webob's `wsgify`: an object with `__get__`, which misleads `inspect.signature`."""

    def __get__(self, instance, owner=None): ...

    def __call__(self, req, *args, **kw): ...


def configured_wsgi(settings, environ, start_response): ...


def configured_asgi(settings, scope, receive, send): ...


class DecoratedCall:
    @wrapping
    async def __call__(self, scope, receive, send): ...


class RequestMethods:
    @wrapping
    def __call__(self, request): ...

    @wrapping
    def view(self, anything): ...


CASES: dict[str, tuple[str, Callable[..., Any]]] = {
    "wsgi function": ("wsgi", wsgi_function),
    "wsgi function, other names": ("wsgi", wsgi_function_other_names),
    "wsgi function, more arguments": ("wsgi", wsgi_with_default),
    "wsgi lambda": ("wsgi", lambda e, s: []),
    "asgi function": ("asgi3", asgi_function),
    "asgi function, more arguments": ("asgi3", asgi_with_default),
    "asgi function of any arguments": ("asgi3", asgi_any),
    "asgi function that is not async": ("asgi3", asgi_plain),
    "asgi 2 function": ("asgi2", asgi2_function),
    "asgi 2 and 3 at once": ("asgi3", double),
    "asgi 2 class": ("asgi2", Asgi2Class),
    "asgi 2 class, not async": ("asgi2", Asgi2PlainClass),
    "class that is awaited": ("asgi3", AwaitedClass),
    "class that is iterated": ("wsgi", IteratedClass),
    "wsgi object": ("wsgi", Wsgi()),
    "wsgi method": ("wsgi", Wsgi().method),
    "wsgi static method": ("wsgi", Wsgi.static),
    "falcon": ("wsgi", FalconWsgi()),
    "falcon asgi": ("asgi3", FalconAsgi()),
    "asgi object": ("asgi3", Asgi()),
    "asgi method": ("asgi3", Asgi().method),
    "asgi object, call not async": ("asgi3", AsgiPlainCall()),
    "asgi object, call of any arguments": ("asgi3", AsgiAnyCall()),
    "partial of wsgi": ("wsgi", functools.partial(configured_wsgi, {})),
    "partial of asgi": ("asgi3", functools.partial(configured_asgi, {})),
    "partial of an object": ("asgi3", functools.partial(Asgi())),
    "partial of a partial": ("wsgi", functools.partial(functools.partial(configured_wsgi, {}))),
    "partial of a wrapper": ("wsgi", functools.partial(wrapping(configured_wsgi), {})),
    "decorated wsgi": ("wsgi", wrapping(wsgi_function)),
    "decorated asgi": ("asgi3", wrapping(asgi_function)),
    "twice decorated": ("asgi3", wrapping(wrapping(asgi_function))),
    "decorated object": ("asgi3", wrapping(Asgi())),
    "decorated without wraps": ("wsgi", wrapping_silently(wsgi_function)),
    "decorated asgi without wraps": ("asgi3", wrapping_silently(Asgi())),
    "async around wsgi": ("asgi3", wrapping_async(wsgi_function)),
    "async adapter around wsgi": ("asgi3", adapting(wsgi_function)),
    "middleware around wsgi": ("wsgi", Middleware(Wsgi())),
    "middleware around asgi": ("asgi3", Middleware(Middleware(Asgi()))),
    "decorated call": ("asgi3", DecoratedCall()),
    "request decorator": ("wsgi", wrapping(lambda anything: None)),
    "request decorator on a call": ("wsgi", RequestMethods()),
    "request decorator on a method": ("wsgi", RequestMethods().view),
    "object with __get__": ("wsgi", Descriptor()),
}


@pytest.mark.parametrize("case", CASES)
def test_told_apart_without_a_flag(case: str) -> None:
    expected, app = CASES[case]
    assert classify(app) == expected


def test_flask() -> None:
    flask = pytest.importorskip("flask")
    app = flask.Flask("shop")
    assert classify(app) == "wsgi"
    assert classify(app.wsgi_app) == "wsgi"


def test_request_application_of_werkzeug() -> None:
    wrappers = pytest.importorskip("werkzeug.wrappers")
    assert classify(wrappers.Request.application(lambda request: wrappers.Response())) == "wsgi"


def test_starlette_and_fastapi() -> None:
    fastapi = pytest.importorskip("fastapi")
    cors = pytest.importorskip("starlette.middleware.cors")
    applications = pytest.importorskip("starlette.applications")
    endpoints = pytest.importorskip("starlette.endpoints")
    assert classify(fastapi.FastAPI()) == "asgi3"
    assert classify(applications.Starlette()) == "asgi3"
    assert classify(cors.CORSMiddleware(fastapi.FastAPI())) == "asgi3"
    assert classify(endpoints.HTTPEndpoint) == "asgi3"


def test_both_handlers_of_django() -> None:
    asgi = pytest.importorskip("django.core.handlers.asgi")
    wsgi = pytest.importorskip("django.core.handlers.wsgi")
    # Their __init__ wants a whole project; what is called does not depend on it.
    assert classify(object.__new__(wsgi.WSGIHandler)) == "wsgi"
    assert classify(object.__new__(asgi.ASGIHandler)) == "asgi3"


def test_adapters_of_asgiref() -> None:
    wsgi = pytest.importorskip("asgiref.wsgi")
    assert classify(wsgi.WsgiToAsgi(wsgi_function)) == "asgi3"


# --- what is refused, and with which remedy ---


def any_arguments(*args, **kwargs): ...


def any_around_async_view(*args): ...


async def _view(request): ...


any_around_async_view.__wrapped__ = _view  # type: ignore[attr-defined]


async def async_view(request): ...


def create(): ...


def create_with_default(config=None, testing=False): ...


async def create_async(): ...


class NeedsName:
    """Flask, before it is called."""

    def __init__(self, import_name, root=None): ...

    def __call__(self, environ, start_response): ...


class ManyOptions:
    """Starlette, before it is called."""

    def __init__(self, debug=False, routes=None, middleware=None): ...

    async def __call__(self, scope, receive, send): ...


class OneOption:
    def __init__(self, config): ...

    async def __call__(self, *args): ...


@pytest.mark.parametrize(
    ("app", "remedy"),
    [
        (any_arguments, "takes any arguments, so it may be ASGI or WSGI; .*--interface asgi3"),
        (any_around_async_view, "--interface"),
        (Middleware(3), "--interface"),
        (create, "is a function without arguments: looks like a factory, add --factory"),
        (create_with_default, "looks like a factory, add --factory"),
        (functools.lru_cache(create), "looks like a factory, add --factory"),
        (create_async, "async function without arguments"),
        (
            async_view,
            r"is async and takes 1 \(request\); WSGI takes 2 \(environ, start_response\), ASGI takes 3",
        ),
        (lambda request: None, r"takes 1 \(request\)"),
        (lambda a, b, c, d: None, r"takes 4 \(a, b, c, d\)"),
        (lambda scope, receive: None, r"takes 2 \(scope, receive\)"),
        (NeedsName, "is a class: give an object made of it, or add --factory"),
        (ManyOptions, "is a class"),
        (OneOption, "is a class"),
        (3, "x is a int, which cannot be called"),
        (functools, "x is a module: name the application in it; it has neither `application` nor `app`"),
    ],
)
def test_refused_with_the_remedy(app: object, remedy: str) -> None:
    with pytest.raises(TargetError, match=remedy):
        classify(app, "auto", "x")


def test_what_the_user_says_is_believed() -> None:
    assert classify(any_arguments, "wsgi") == "wsgi"
    assert classify(asgi_function, "asgi2") == "asgi2"


def test_a_circle_of_wrappers_ends() -> None:
    def circle(*args): ...

    circle.__wrapped__ = circle  # type: ignore[attr-defined]
    with pytest.raises(TargetError, match="--interface"):
        classify(circle)


def test_objects_that_have_every_attribute_are_not_followed() -> None:
    class Everything:
        def __getattr__(self, name):
            return wsgi_function

        __call__ = functools.partial(any_arguments)

    with pytest.raises(TargetError, match="--interface"):
        classify(Everything())


def test_classifying_calls_nothing() -> None:
    class Bomb:
        def __call__(self, environ, start_response):
            raise AssertionError

    assert classify(Bomb()) == "wsgi"


@pytest.mark.parametrize("factory", [create, create_with_default, ManyOptions, functools.lru_cache(create)])
def test_factories(factory: object) -> None:
    assert check_factory(factory, "x") is factory


@pytest.mark.parametrize(
    ("factory", "remedy"),
    [
        (wsgi_function, "is an application already: leave out --factory"),
        (asgi_function, "is an application already"),
        (Asgi(), "is an application already"),
        (create_async, "is async: make it a plain function"),
        (NeedsName, r"needs arguments \(import_name\)"),
        (lambda settings: None, r"needs arguments \(settings\)"),
        ("text", "cannot be called: not a factory"),
    ],
)
def test_no_factories(factory: object, remedy: str) -> None:
    with pytest.raises(TargetError, match=remedy):
        check_factory(factory, "x")
