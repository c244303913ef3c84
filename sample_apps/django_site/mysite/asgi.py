"""The project as an ASGI callable.

    devserver sample_apps/django_site/mysite/asgi.py --reload

The views stay synchronous: Django runs them in a thread.
"""

import os
import warnings

from django.core.asgi import get_asgi_application

# Django reads static files with a synchronous iterator and warns of that itself, at the first of them.
warnings.filterwarnings("ignore", "StreamingHttpResponse must consume synchronous iterators")

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
application = get_asgi_application()
