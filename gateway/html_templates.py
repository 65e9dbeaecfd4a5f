"""HTML of this package: templates, and how values are written in them."""

from jinja2 import Environment, PackageLoader, StrictUndefined

from gateway.period_report import Report


def environment() -> Environment:
    """Return the templates of this package; every value is escaped."""
    loader = PackageLoader("gateway")
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    made.filters["duration"] = duration
    made.filters["seconds"] = lambda value: "-" if value is None else f"{value:.1f} s"
    return made


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
