"""The web page at `/`, its samples, and the API page at `/docs`, all from our own files.

Each file of app/page/ has a route of its own. No folder is mounted at `/`: a mount would answer for
every address, and would hide that a method is not allowed.
"""

from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send
from swagger_ui_bundle import swagger_ui_path

from app.api.routes.html import SECURITY_HEADERS
from cxr.phantom import phantom_dicom, phantom_png

PAGE_FOLDER = Path(__file__).parents[2] / "page"
_PAGE_TYPES = {
    ".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml", ".png": "image/png", ".ico": "image/x-icon", ".woff2": "font/woff2",
}  # fmt: skip

_DOCS_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>cxr-serve API</title>
<link rel="stylesheet" href="docs/assets/swagger-ui.css">
<link rel="icon" href="docs/assets/favicon-32x32.png"></head>
<body><div id="swagger-ui"></div>
<script src="docs/assets/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script></body></html>
"""
_DOCS_SCRIPT = """SwaggerUIBundle({
  url: "openapi.json", dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null
});
"""


def install_pages(app: FastAPI) -> None:
    """Add the pages' routes; the OpenAPI document does not list them."""
    for file in sorted(PAGE_FOLDER.iterdir()):
        if file.suffix in _PAGE_TYPES:
            _add_file(app, "/" if file.name == "index.html" else f"/{file.name}", file)
    _add(app, "/sample.dcm", _sample_dicom)
    _add(app, "/sample.png", _sample_png)
    _add(app, "/docs", _docs)
    _add(app, "/docs/start.js", _docs_script)
    app.mount("/docs/assets", _WholeFiles(directory=str(swagger_ui_path)), name="docs-assets")


def _add_file(app: FastAPI, address: str, file: Path) -> None:
    content, media_type = file.read_bytes(), _PAGE_TYPES[file.suffix]

    async def send_file(_: Request) -> Response:
        return Response(content, headers=SECURITY_HEADERS, media_type=media_type)

    _add(app, address, send_file)


def _add(app: FastAPI, address: str, endpoint: Callable[[Request], Awaitable[Response]]) -> None:
    app.add_api_route(
        address, endpoint, methods=["GET", "HEAD"], include_in_schema=False, response_model=None
    )


class _WholeFiles(StaticFiles):
    """Files that are always sent whole.

    A server may pass over a `Range` (RFC 9110 section 14.2); starlette answers one that is wrong,
    and with no problem document.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as if no `Range` had been asked for."""
        headers = [header for header in scope["headers"] if header[0] != b"range"]
        await super().__call__({**scope, "headers": headers}, receive, send)


async def _docs(_: Request) -> Response:
    return Response(_DOCS_PAGE, headers=SECURITY_HEADERS, media_type="text/html")


async def _docs_script(_: Request) -> Response:
    return Response(_DOCS_SCRIPT, headers=SECURITY_HEADERS, media_type="text/javascript")


async def _sample_dicom(_: Request) -> Response:
    return Response(_dicom_once(), media_type="application/dicom")


async def _sample_png(_: Request) -> Response:
    return Response(_png_once(), media_type="image/png")


_dicom_once = cache(phantom_dicom)
_png_once = cache(phantom_png)
