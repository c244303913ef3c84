"""Which address leads to which view."""

from django.contrib.staticfiles.urls import staticfiles_urlpatterns
from django.urls import path
from guestbook.views import index

# Django's own runserver serves the static files of applications by itself; under any other server this
# line does, by WSGI and by ASGI, as long as DEBUG is on.
urlpatterns = [path("", index, name="index"), *staticfiles_urlpatterns()]
