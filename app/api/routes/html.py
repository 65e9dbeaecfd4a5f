"""Pages that the service writes itself, and the headers of every page."""

import html

from starlette.responses import HTMLResponse

SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; "
        "object-src 'none'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
"""Only our own scripts run. Styles may be part of a page, for Swagger UI writes them so."""

_STYLE = """
body { max-width: 50rem; margin: 2rem auto; padding: 0 1rem; font: 16px/1.55 system-ui, sans-serif; color: #1c2430; background: #fff; }
header { display: flex; flex-wrap: wrap; gap: .4rem 1rem; align-items: baseline; padding-bottom: .8rem; border-bottom: 1px solid #c6ccd4; }
header strong { color: #8a4a00; }
table { border-collapse: collapse; display: block; overflow-x: auto; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { border: 1px solid #c6ccd4; padding: .3rem .6rem; text-align: left; vertical-align: baseline; }
p, li { overflow-wrap: anywhere; }
code, pre { font: 0.9em ui-monospace, monospace; background: #f1f3f6; } pre { padding: .8rem; overflow-x: auto; }
a { color: #0b5cad; } h1, h2 { line-height: 1.2; }
@media (prefers-color-scheme: dark) { body { color: #e4e8ee; background: #14181e; } code, pre { background: #232a33; } a { color: #7db8f5; }
  header, th, td { border-color: #3a4450; } header strong { color: #f2b65c; } }
"""  # noqa: E501


def html_response(title: str, body: str, *, home: str) -> HTMLResponse:
    """Return a page around HTML that is safe already.

    `home` is the relative address of the page at `/`.
    """
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        'content="width=device-width">'
        f'<link rel="icon" href="{home}favicon.svg">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>"
        f'<header><a href="{home}">cxr-serve</a><strong>Research use. Not for '
        f"diagnosis.</strong></header>"
        f"<main>{body}</main></body></html>"
    )
    return HTMLResponse(page, headers=SECURITY_HEADERS)
