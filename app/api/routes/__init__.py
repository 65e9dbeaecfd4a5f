"""The endpoints of the service."""

from fastapi import FastAPI

from app.api.routes import dicom, health, models, open_inference, pages, predict, preview


def install_routes(app: FastAPI) -> None:
    """Add every endpoint to an application."""
    app.include_router(predict.router)
    app.include_router(dicom.router)
    app.include_router(preview.router)
    app.include_router(models.router)
    app.include_router(open_inference.router)
    app.include_router(open_inference.infer_router)
    app.include_router(health.router)
    pages.install_pages(app)
