"""devserver as Django's `manage.py runserver`: put "devserver.django" first in INSTALLED_APPS.

The parts, in the order in which they act:

    bootstrap     the process that was started: becomes the supervisor as soon as this package is
                  imported, which is long before the project is loaded
    __main__      the supervisor, and its children
    project       the child: runs manage.py again, with Django held by `patches`
    management    the command, which hands its handler to `serving`
    changes       Django's signals about files
    detection     `devserver` with no target, in a folder with a manage.py

To import this package is what begins it all; in any other process it does nothing, and costs nothing.
"""

import sys

if "django.core.management" in sys.modules:
    from devserver.django import bootstrap

    bootstrap.on_import()
