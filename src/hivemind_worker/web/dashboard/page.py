"""The page as HTML: one template, in which everything is escaped; and the files that go with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import jinja2

from hivemind_worker.web.dashboard import views, words

_HERE: Final = Path(__file__).resolve().parent

STATIC: Final[Mapping[str, str]] = {
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
"""The files that are served beside the page, with their types; no others are."""


class Page:
    """The template, read once. Blocks for a few milliseconds."""

    def __init__(self) -> None:
        surroundings = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._template = surroundings.get_template("page.html")
        self.static = {name: (_HERE / "static" / name).read_bytes() for name in STATIC}

    def html(self, shown: Mapping[str, Any], language: str, version: str) -> str:
        """Return the page of a view in that view's language."""
        return self._template.render(
            now=shown, say=words.TEXTS[language], lang=language, version=version, width=views.WIDTH, height=views.HEIGHT
        )
