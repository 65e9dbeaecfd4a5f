"""A model card as HTML."""

import re

from markdown_it import MarkdownIt

_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
"""YAML that model hubs read."""


def render_card(text: str) -> str:
    """Return a model card as HTML. Tags in it are shown as text; its front matter is left out."""
    body = _FRONT_MATTER.sub("", text, count=1)
    return str(MarkdownIt("commonmark", {"html": False}).enable("table").render(body))
