"""The project as a WSGI callable.

    devserver sample_apps/django_site/mysite/wsgi.py --reload

A file inside a package is imported by its dotted name, here `mysite.wsgi`, from the folder above it.
"""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
application = get_wsgi_application()
