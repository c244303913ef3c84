"""The documentation site: `nox -s docs` builds it, and fails at a warning or at a link that leads nowhere.

Sphinx, with furo, since both are well kept. Pages stay Markdown (MyST), which can be read in a checkout as
well. MkDocs was weighed: its common theme, Material, ends in 2027.
"""

from __future__ import annotations

from devserver import __version__

project = "devserver"
author = "The devserver authors"
version = release = __version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinxcontrib.mermaid",
]
html_theme = "furo"
html_title = f"devserver {__version__}"
myst_heading_anchors = 3  # links to headings are checked
myst_fence_as_directive = ["mermaid"]
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
copybutton_exclude = ".linenos, .gp"
