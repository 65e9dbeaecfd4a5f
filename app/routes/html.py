"""Pages that the service writes itself, and the headers that every page carries."""

import html

from starlette.responses import HTMLResponse

SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; object-src 'none'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
"""No script but ours ever runs; styles may stand in a page, as Swagger UI writes them there."""

_STYLE = """
body { max-width: 50rem; margin: 2rem auto; padding: 0 1rem; font: 16px/1.55 system-ui, sans-serif; color: #1c2430; background: #fff; }
table { border-collapse: collapse; display: block; overflow-x: auto; } th, td { border: 1px solid #c6ccd4; padding: .3rem .6rem; text-align: left; }
code, pre { font: 0.9em ui-monospace, monospace; background: #f1f3f6; } pre { padding: .8rem; overflow-x: auto; }
a { color: #0b5cad; } h1, h2 { line-height: 1.2; }
@media (prefers-color-scheme: dark) { body { color: #e4e8ee; background: #14181e; } code, pre { background: #232a33; } a { color: #7db8f5; } }
"""  # noqa: E501


def html_response(title: str, body: str) -> HTMLResponse:
    """Send a page of ours around HTML that is safe already."""
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        '<link rel="icon" href="/favicon.svg">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>{body}</body></html>"
    )
    return HTMLResponse(page, headers=SECURITY_HEADERS)
