"""The web page at `/`, its samples, and the API page at `/docs`, all from our own files.

Each file of app/page/ is a route of its own, and no folder is mounted at `/`:
a mount would answer for every address, and hide that a method is not allowed.
"""

from functools import cache
from pathlib import Path

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from swagger_ui_bundle import swagger_ui_path

from app.routes.html import SECURITY_HEADERS
from cxr.phantom import phantom_dicom, phantom_png

PAGE_FOLDER = Path(__file__).parent.parent / "page"
_PAGE_TYPES = {
    ".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml", ".png": "image/png", ".ico": "image/x-icon", ".woff2": "font/woff2",
}  # fmt: skip

_DOCS_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>cxr-serve API</title>
<link rel="stylesheet" href="docs/assets/swagger-ui.css"><link rel="icon" href="docs/assets/favicon-32x32.png"></head>
<body><div id="swagger-ui"></div>
<script src="docs/assets/swagger-ui-bundle.js"></script><script src="docs/start.js"></script></body></html>
"""
_DOCS_SCRIPT = """SwaggerUIBundle({ url: "openapi.json", dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null });
"""


def install_pages(app: FastAPI) -> None:
    """Add the pages' routes; they are no part of the API and stand in no document."""
    for file in sorted(PAGE_FOLDER.iterdir()):
        if file.suffix in _PAGE_TYPES:
            _add_file(app, "/" if file.name == "index.html" else f"/{file.name}", file)
    app.add_route("/sample.dcm", _sample_dicom, ["GET"], include_in_schema=False)
    app.add_route("/sample.png", _sample_png, ["GET"], include_in_schema=False)
    app.add_route("/docs", _docs, ["GET"], include_in_schema=False)
    app.add_route("/docs/start.js", _docs_script, ["GET"], include_in_schema=False)
    app.mount("/docs/assets", StaticFiles(directory=str(swagger_ui_path)), name="docs-assets")


def _add_file(app: FastAPI, address: str, file: Path) -> None:
    async def send_file(_: Request) -> Response:
        return FileResponse(file, media_type=_PAGE_TYPES[file.suffix], headers=SECURITY_HEADERS)

    app.add_route(address, send_file, ["GET"], include_in_schema=False)


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
