"""The web page at `/`, its samples, and the API page at `/docs`, all from our own files.

Each file of app/page/ has a route of its own. No folder is mounted at `/`: a mount would answer for
every address, and would hide that a method is not allowed.
"""

from collections.abc import Awaitable, Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from app.api.routes.html import SECURITY_HEADERS
from cxr.phantom import phantom_dicom, phantom_png

PAGE_FOLDER = Path(__file__).parents[2] / "page"
_PAGE_TYPES = {
    ".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml", ".png": "image/png", ".ico": "image/x-icon", ".woff2": "font/woff2",
}  # fmt: skip

_DOCS_ASSETS = ("swagger-ui.css", "swagger-ui-bundle.js")
"""Files of Swagger UI that the page needs; no other file of its package is served."""

_DOCS_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>cxr-serve API</title>
<link rel="stylesheet" href="docs/assets/swagger-ui.css">
<link rel="icon" href="favicon.svg"></head>
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
    for name in _DOCS_ASSETS:
        _add_file(app, f"/docs/assets/{name}", _swagger_folder() / name)


def _swagger_folder() -> Path:
    """Return the folder with Swagger UI's files, without importing the package around them."""
    spec = find_spec("fastapi_offline")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "static"


def _add_file(app: FastAPI, address: str, file: Path) -> None:
    content, media_type = file.read_bytes(), _PAGE_TYPES[file.suffix]

    async def send_file(_: Request) -> Response:
        return Response(content, headers=SECURITY_HEADERS, media_type=media_type)

    _add(app, address, send_file)


def _add(app: FastAPI, address: str, endpoint: Callable[[Request], Awaitable[Response]]) -> None:
    app.add_api_route(address, endpoint, include_in_schema=False, response_model=None)


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
