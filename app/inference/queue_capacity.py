"""How many images of one model may be in work or waiting; a view of an upload is one image."""

import asyncio

from app.errors import NotReady


class QueueCapacity:
    """A count of images with a limit. Belongs to one event loop."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.num_held = 0
        self._refusal: str | None = None
        self._pause: NotReady | None = None
        self._was_emptied = asyncio.Event()

    @property
    def is_closed(self) -> bool:
        """Tell whether no further image is taken."""
        return self._refusal is not None

    def close(self, reason: str) -> None:
        """Take no further image; the first reason stays."""
        self._refusal = self._refusal or reason
        if not self.num_held:
            self._was_emptied.set()

    @property
    def pause_reason(self) -> str | None:
        """Why no image is taken for a while; None while images are taken."""
        return None if self._pause is None else str(self._pause)

    def pause(self, reason: str, *, retry_after_s: int = 1) -> None:
        """Take no image until `resume`."""
        self._pause = NotReady(reason, retry_after_s=retry_after_s)

    def resume(self) -> None:
        """Take images again, unless it is closed."""
        self._pause = None

    def check_open(self) -> None:
        """Raise `NotReady` if it is closed or pauses."""
        if self._refusal is not None:
            raise NotReady(self._refusal)
        if self._pause is not None:
            raise NotReady(str(self._pause), retry_after_s=self._pause.retry_after_s)

    def fits(self, num_images: int) -> bool:
        """Tell whether so many images can be held now."""
        return self.num_held + num_images <= self.limit

    def hold(self, num_images: int) -> None:
        """Count images from their admission on."""
        self.num_held += num_images

    def release(self, num_images: int) -> None:
        """Count images no longer."""
        self.num_held -= num_images
        if self.is_closed and not self.num_held:
            self._was_emptied.set()

    async def wait_until_empty(self) -> None:
        """Wait until it is closed and holds no image."""
        await self._was_emptied.wait()
