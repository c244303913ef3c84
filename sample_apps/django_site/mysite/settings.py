"""Settings of a small Django project: one application, templates, static files, SQLite.

Only what the guest book needs: no admin, no users, no sessions.
"""

from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent

# For development only. In earnest: a secret from the environment, DEBUG off and the hosts named.
SECRET_KEY = "not-a-secret"
DEBUG = True
ALLOWED_HOSTS: list[str] = []  # with DEBUG: localhost and loopback addresses

# The first makes `manage.py runserver` devserver's.
INSTALLED_APPS = ["devserver.django", "django.contrib.staticfiles", "guestbook"]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
]
ROOT_URLCONF = "mysite.urls"
WSGI_APPLICATION = "mysite.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {"context_processors": ["django.template.context_processors.request"]},
    }
]
STATIC_URL = "static/"

# `manage.py migrate` makes the file; git ignores it.
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db.sqlite3"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = "UTC"
