"""HTML of this package: templates, and how values are written in them."""

from jinja2 import Environment, PackageLoader, StrictUndefined

from gateway.period_report import Report

_WORDS = {
    "unreachable": "does not answer",
    "association_not_reached": "does not answer",
    "association_rejected": "does not know our AE title or address",
    "association_lost": "ended the association",
    "no_response": "took it and did not answer in time",
    "no_context": "accepts no such objects",
    "no_answer_in_time": "gives no answer about this image, and answers about others",
    "destination_removed": "destination {target} is no longer configured",
    "not_held": "accepted it, and does not show it when asked",
    "http_401": "does not accept our key",
    "http_403": "does not accept our key",
    "no_dicomweb": "answers with a page for people: look at stow_url and at the proxy before it",
    "overloaded": "has too much to do",
    "not_ready": "is starting or stopping",
    "no_rule": "no rule matches it",
    "rule": "its rule says so",
    "own_result": "a result of our own came back",
    "unreadable": "its file can't be read",
    "not_a_chest": "the service: another body part",
    "not_frontal": "the service: a lateral view",
    "corrupt_image": "the service: the image is damaged",
    "not_a_radiograph": "the service: no plain radiograph",
}
"""What a word of the tables, metrics and logs means to an administrator."""


def environment() -> Environment:
    """Return the templates of this package; every value is escaped."""
    loader = PackageLoader("gateway")
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    made.filters["duration"] = duration
    made.filters["reason"] = describe
    made.filters["seconds"] = lambda value: "-" if value is None else f"{value:.1f} s"
    return made


def describe(reason: str, target: str = "") -> str:
    """Write a reason in words, with its code; a code without words stays as it is."""
    return f"{_WORDS[reason].format(target=target)} ({reason})" if reason in _WORDS else reason


def duration(seconds: float) -> str:
    """Write a duration as a person would: 42 s, 7 min, 3.5 h, 2.1 days."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"


def render_report(report: Report) -> str:
    """Return a report as one HTML file that needs nothing else."""
    return environment().get_template("report.html").render(report=report)
