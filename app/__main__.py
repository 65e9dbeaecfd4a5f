"""`python -m app`: read the settings, start the server, and end it without losing a request.

On SIGTERM the service says that it is not ready and answers new requests 503 for
`CXR_DRAIN_SECONDS`, so that a load balancer sees it; then the port closes, what
was taken is finished, and the process ends.  Ctrl-C skips the waiting.

Nothing heavy is imported before the settings are good: a worker process of the
decoders imports this file too, and Prometheus chooses its mode at import.
"""

import argparse
import math
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import uvicorn

    from app.settings import Settings


def main(arguments: list[str] | None = None) -> int:
    """Run the service until it is told to stop; gives the exit status."""
    from app.settings import Settings, SettingsError, describe_settings  # noqa: PLC0415

    parser = argparse.ArgumentParser(
        prog="python -m app",
        description="Serve the models of a store over HTTP. Every setting is an environment variable:",
        epilog=describe_settings(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.parse_args(arguments)
    try:
        settings = Settings.read()
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return serve(settings)


def serve(settings: "Settings") -> int:
    """Serve until SIGTERM or SIGINT; gives the exit status."""
    import uvicorn  # noqa: PLC0415

    from app.main import create_app  # noqa: PLC0415
    from app.protocol import make_protocol  # noqa: PLC0415
    from app.telemetry import configure_logging  # noqa: PLC0415

    configure_logging(settings.log_level)
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="auto",  # uvloop where it is installed
        http=make_protocol(settings.header_timeout_seconds, app.state.service.metrics),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=math.ceil(settings.default_timeout_seconds),
    )
    server = make_server(config, drain_seconds=settings.drain_seconds, on_drain=app.state.service.classifier.drain)
    server.run()
    return 0 if server.started else 1


def make_server(config: "uvicorn.Config", *, drain_seconds: float, on_drain: Callable[[], None]) -> "uvicorn.Server":
    """Make a server that goes on answering for a while after SIGTERM, when `on_drain` was called."""
    import uvicorn  # noqa: PLC0415

    class DrainingServer(uvicorn.Server):
        _closes_at = math.inf

        def handle_exit(self, sig: int, _frame: FrameType | None) -> None:
            """Drain first on SIGTERM; a second signal, or Ctrl-C, closes at once."""
            on_drain()
            if sig == signal.SIGTERM and self._closes_at == math.inf:
                self._closes_at = time.monotonic() + drain_seconds
            else:
                self.force_exit = self.should_exit and sig == signal.SIGINT
                self.should_exit = True

        async def on_tick(self, counter: int) -> bool:
            """Close the port when draining is over."""
            self.should_exit = self.should_exit or time.monotonic() >= self._closes_at
            return await super().on_tick(counter)

    return DrainingServer(config)


if __name__ == "__main__":
    sys.exit(main())
