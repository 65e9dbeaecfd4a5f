"""`python -m gateway`: run the node, or ask it something."""

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path

import pydicom.config
import uvicorn

from gateway import dead_letters, deliveries
from gateway.database import Database, DatabaseError
from gateway.explain_rules import explain
from gateway.hashing import SiteKey
from gateway.html_templates import describe, render_report
from gateway.http_routes import create_app
from gateway.node import database_path, running_node, site_key_path
from gateway.period_report import lines_of, make_report
from gateway.settings import GatewayConfigError, GatewaySettings, load_settings
from gateway.tls import server_options

_DRAIN_S = 5
"""How long an upload may take to end after SIGTERM; its sender sends again what is cut off."""

CONFIG_VARIABLE = "GATEWAY_CONFIG"

_HELP = """\
A DICOM node between modalities or an archive and the service.

  python -m gateway                    run the node that gateway.toml describes
  python -m gateway check              check the file, and say which line is wrong
  python -m gateway explain FILE       say which rule a DICOM file falls under, and why
  python -m gateway dead               list what was given up
  python -m gateway resend d12         send one of these again (or: resend all)
  python -m gateway hash VALUE         hash a UID or accession number with the site's key
  python -m gateway report --from 2026-11-01 --to 2026-11-30 --html november.html

Start with silent = true in every rule: images are scored and recorded, and nothing is sent."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    options = _parser().parse_args(arguments)
    quieten_libraries()
    try:
        needs_files = options.run in (_serve, _check)
        settings = load_settings(options.config, needs_files=needs_files)
        return int(options.run(settings, options))
    except (GatewayConfigError, DatabaseError) as exc:
        _say(str(exc))
    except (OSError, ValueError) as exc:
        _say(f"gateway: {type(exc).__name__}: {exc}")
    return 2


def quieten_libraries() -> None:
    """Keep libraries from writing values of a file into a log."""
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    for name in ("pydicom", "pynetdicom", "httpx", "httpcore", "python_multipart"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def _serve(settings: GatewaySettings, _options: argparse.Namespace) -> int:
    """Run the node until SIGTERM or SIGINT."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    with running_node(settings) as node:
        http = settings.http
        config = uvicorn.Config(
            create_app(node),
            host=http.host,
            port=http.port,
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            lifespan="off",
            timeout_graceful_shutdown=_DRAIN_S,
            **(server_options(http.tls) if http.tls else {}),
        )
        server = uvicorn.Server(config)
        server.run()
        return 0 if server.started else 1


def _check(settings: GatewaySettings, options: argparse.Namespace) -> int:
    _print(f"{options.config}: {len(settings.rules)} rules, no fault")
    path = database_path(settings)
    if path.exists():
        with closing(Database(path)) as database, database.reading() as connection:
            waiting = deliveries.count_for_removed(connection, settings.destination_names)
        for name, count in sorted(waiting.items()):
            _print(f"destination {name} is no longer configured: {count} results wait for it")
    return 0


def _explain(settings: GatewaySettings, options: argparse.Namespace) -> int:
    for line in explain(settings, options.file.read_bytes(), options.calling_ae):
        _print(line)
    return 0


def _dead(settings: GatewaySettings, _options: argparse.Namespace) -> int:
    with closing(Database(database_path(settings))) as database, database.reading() as connection:
        for letter in dead_letters.list_dead(connection):
            key = SiteKey.load(site_key_path(settings))
            record = {"number": letter.number, "hash": key.hash(letter.uid)}
            record |= {"target": letter.target, "reason": letter.reason}
            _print(json.dumps(record | {"meaning": describe(letter.reason, letter.target)}))
    return 0


def _resend(settings: GatewaySettings, options: argparse.Namespace) -> int:
    names, faults = settings.destination_names, []
    if options.to is not None and options.to not in names:
        raise ValueError(f"there is no destination {options.to}")
    if options.to is not None and any(number.startswith("i") for number in options.number):
        raise ValueError("--to is for results (d12); an image goes where its rule says")
    with closing(Database(database_path(settings))) as database:
        numbers = options.number
        if numbers == ["all"]:
            with database.reading() as connection:
                numbers = [letter.number for letter in dead_letters.list_dead(connection)]
        for number in numbers:
            change = partial(dead_letters.revive, number=number, destinations=names, to=options.to)
            try:
                if not database.write("revived", change):
                    faults.append(f"there is no dead letter {number}")
            except dead_letters.RemovedDestination as exc:
                faults.append(f"{number}: {exc}; name it again, or add --to NAME")
            except dead_letters.HasItsOwnCopy as exc:
                faults.append(f"{number}: {exc}; it was not sent")
    for fault in faults:
        _say(f"gateway: {fault}")
    return 1 if faults else 0


def _hash(settings: GatewaySettings, options: argparse.Namespace) -> int:
    _print(SiteKey.load(site_key_path(settings)).hash(options.value))
    return 0


def _report(settings: GatewaySettings, options: argparse.Namespace) -> int:
    with closing(Database(database_path(settings))) as database, database.reading() as connection:
        report = make_report(connection, options.first, options.last)
    for line in lines_of(report):
        _print(line)
    if options.html is not None:
        options.html.write_text(render_report(report), encoding="utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gateway", description=_HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Path(os.environ.get(CONFIG_VARIABLE, "gateway.toml"))
    parser.add_argument("--config", type=Path, default=default, metavar="TOML")
    parser.set_defaults(run=_serve)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    commands.add_parser("check", help="check the settings").set_defaults(run=_check)
    explaining = commands.add_parser("explain", help="say which rule a file falls under")
    explaining.add_argument("file", type=Path)
    explaining.add_argument("--calling-ae", default="", help="AE title of the sender")
    explaining.set_defaults(run=_explain)
    commands.add_parser("dead", help="list what was given up").set_defaults(run=_dead)
    resending = commands.add_parser("resend", help="send dead letters again")
    resending.add_argument("number", nargs="+")
    resending.add_argument("--to", metavar="NAME", help="another destination, for results")
    resending.set_defaults(run=_resend)
    hashing = commands.add_parser("hash", help="hash a UID or accession number")
    hashing.add_argument("value")
    hashing.set_defaults(run=_hash)
    reporting = commands.add_parser("report", help="count the answers of a period")
    today = datetime.now(UTC).date()
    week_ago = today - timedelta(days=7)
    add_day = partial(reporting.add_argument, type=date.fromisoformat, metavar="YYYY-MM-DD")
    add_day("--from", dest="first", default=week_ago, help="first day, by UTC (a week ago)")
    add_day("--to", dest="last", default=today, help="last day, by UTC, included (today)")
    reporting.add_argument("--html", type=Path, metavar="FILE")
    reporting.set_defaults(run=_report)
    return parser


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
