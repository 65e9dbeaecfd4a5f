"""HTML pages from the templates of this folder: no script, no font, no picture from elsewhere."""

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from training.stats.figure_texts import figure_text, interval_text


def render(template: str, **values: object) -> str:
    """Return a page. Values are escaped, unless they are markup (`svg`)."""
    return _environment().get_template(template).render(**values)


def svg(text: str) -> Markup:
    """Mark a drawing of ours as markup, so that it is not escaped."""
    return Markup(text)  # noqa: S704 - matplotlib escapes the text in it


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("training.html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = figure_text
    environment.filters["interval"] = interval_text
    environment.filters["count"] = "{:,}".format
    environment.filters["percent"] = "{:.1%}".format
    environment.filters["number"] = _number
    return environment


def _number(value: float) -> str:
    """Return a value of any size to about four digits."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
