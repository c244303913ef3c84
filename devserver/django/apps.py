"""The application that goes into INSTALLED_APPS. It has no models; its command is all it brings."""

from django.apps import AppConfig


class DevserverConfig(AppConfig):  # type: ignore[misc] # Django has no types
    """Named so that a project's own `django` or `devserver` is no clash."""

    name = "devserver.django"
    label = "devserver_django"
    verbose_name = "devserver"
