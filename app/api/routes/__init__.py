"""The endpoints of the service."""

from fastapi import FastAPI

from app.api.routes import dicom, health, models, open_inference, pages, predict, preview


def install_routes(app: FastAPI) -> None:
    """Add every endpoint to an application."""
    routers = (
        predict.router,
        dicom.router,
        preview.router,
        models.router,
        open_inference.router,
        open_inference.infer_router,
        health.router,
    )
    for router in routers:
        # `include_router` would nest them, and each request would be matched router by router.
        app.router.routes.extend(router.routes)
    pages.install_pages(app)
