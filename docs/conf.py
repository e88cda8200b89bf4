"""Sphinx's settings for the docs as a site: `make site`."""

from __future__ import annotations

from imagepipe import __version__

project = "imagepipe"
author = "the authors of imagepipe"
copyright = "the authors of imagepipe, Apache-2.0"
version = release = __version__
extensions = ["myst_parser"]
exclude_patterns = ["generate"]
myst_heading_anchors = 4
myst_links_external_new_tab = False
html_theme = "furo"
html_title = "imagepipe"
html_copy_source = False
html_show_sphinx = False
pygments_style = "default"
suppress_warnings = ["misc.highlighting_failure"]  # YAML with shell, and shell with placeholders
# Blocks without a language are commands or output.
highlight_language = "none"
