"""`python -m app`: read the settings, then serve in this process or as the parent of several.

The settings are checked before anything slow is imported.
"""

import argparse
import sys

from app.server.end_process import end_process
from app.settings import Settings, SettingsError
from app.settings.help import describe_settings


def main(arguments: list[str] | None = None) -> int:
    """Run the service until it is told to stop. Return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m app",
        description="Serve the models of a store over HTTP. Every setting is an environment "
        "variable:",
        epilog=describe_settings(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.parse_args(arguments)
    try:
        settings = Settings.read()
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    try:
        is_alone = settings.workers == 1 and not settings.has_device_process
        return _serve_alone(settings) if is_alone else _supervise(settings)
    except OSError as error:
        sys.stderr.write(f"the port can't be opened: {error}\n")
        return 1


def _serve_alone(settings: Settings) -> int:
    from app.server.process import serve_alone  # noqa: PLC0415

    return serve_alone(settings)


def _supervise(settings: Settings) -> int:
    """Serve by several worker processes until SIGTERM or SIGINT. Return the exit status."""
    from app.server.log import configure_logging  # noqa: PLC0415
    from app.server.supervisor import Supervisor  # noqa: PLC0415
    from app.server.worker_slot import work  # noqa: PLC0415

    configure_logging(settings.log_level)
    return Supervisor(settings, work).run()


if __name__ == "__main__":
    end_process(main())
