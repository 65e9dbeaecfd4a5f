"""`cxr-serve predict`, also `python -m cxr_client predict`: send files or whole folders, write a
table.
"""

import argparse
import os
import sys
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from pathlib import Path
from typing import Never
from urllib.parse import urlencode

from tqdm import tqdm

from cxr_client.answers import PredictionDict
from cxr_client.client import DEFAULT_URL, Asking, Client, ClientError, ServiceProblem
from cxr_client.files import Unreadable, find_files
from cxr_client.table import Table, TableError

KEY_VARIABLE = "CXRSERVE_KEY"
"""Not CXR_KEY: the service refuses to start beside a `CXR_*` variable that it does not know."""

_AHEAD = 2
"""Files that may be read and waiting, for each one in work."""

_OF_THE_QUESTION = frozenset({400, 401, 403, 404, 405, 406})
"""Statuses that every other file would get too: a wrong key, model, parameter or address."""

_GIVE_UP_AFTER = 8
"""Files in a row that nobody answered, each for as long as `--patience` says."""

_LAST_ANSWERS_S = 2.0
"""How long answers that are on their way are waited for when the command stops early."""

_HELP = """\
Send radiographs to a running service and write one line of CSV for each.

  cxr-serve predict radiograph.dcm
  cxr-serve predict archive/ --url https://cxr.example.org --tta --csv answers.csv

In a folder, at any depth, every file is sent that begins like a DICOM, PNG or JPEG file.
What can't be read (a dead link, a pipe, a locked folder) gets a line with the code
`unreadable`, and is tried again the next time.
The same command again goes on where the table ends: files that have a line are not sent
again.  A file that got no answer because the service could not be reached, or had too
much to do for too long, gets no line, and so is tried again the next time.  A wrong key,
model or parameter stops the command before it writes a line."""

_EXIT = """\
exit status:
  0  every file has an answer          2  some files have no line
  1  some files have a problem       130  interrupted

An API key is better given as CXRSERVE_KEY: others on this machine can read a command's
arguments.  https://host/prefix is taken as --url too."""

ANSWERED, PROBLEMS, UNFINISHED, INTERRUPTED = 0, 1, 2, 130
"""Exit status: every file has an answer; some file has a problem; some file has no line; Ctrl-C."""

Outcome = PredictionDict | ClientError | OSError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; gives the exit status."""
    options = _parser().parse_args(arguments)
    asking = _asking(options)
    key = options.key or os.environ.get(KEY_VARIABLE)
    try:
        with (
            Table(options.csv, urlencode(sorted(asking.items()))) as table,
            Client(options.url, key=key, patience_s=options.patience) as client,
        ):
            return _run(
                client,
                table,
                list(find_files(options.files, done=table.done)),
                asking,
                jobs=options.jobs,
            )
    except (TableError, OSError) as exc:
        _say(f"cxr-serve: {exc}")
        return UNFINISHED
    except KeyboardInterrupt:
        _say("cxr-serve: interrupted; the same command goes on from here")
        return INTERRUPTED


def _run(
    client: Client,
    table: Table,
    found: Sequence[Path | Unreadable],
    asking: Asking,
    *,
    jobs: int,
) -> int:
    """Send files, a bounded number at once; write a line for each as its answer comes."""
    problems = unfinished = unanswered = 0
    paths = [entry for entry in found if isinstance(entry, Path)]
    with (
        closing(_answers(client, paths, asking, jobs)) as answers,
        _progress(len(paths), len(table.done)) as progress,
    ):
        for path, answer in answers:
            if _is_of_the_question(path, answer):
                _say(f"cxr-serve: {answer}")
                return UNFINISHED
            unanswered = (
                unanswered + 1 if isinstance(answer, ClientError) and answer.may_pass else 0
            )
            if isinstance(answer, ServiceProblem) and not answer.may_pass:
                problems += 1
                table.add(str(path), answer)
            elif isinstance(answer, Exception):
                unfinished += 1
                progress.write(f"{path}: {answer}", file=sys.stderr)
            else:
                table.add(str(path), answer)
            progress.update()
            if unanswered == _GIVE_UP_AFTER:
                _say("cxr-serve: nobody answers; the same command goes on from here")
                return UNFINISHED
    unfinished += _tell_unreadable(found, table)
    if problems or unfinished:
        _say(f"cxr-serve: with a problem: {problems}, without an answer: {unfinished}")
    return UNFINISHED if unfinished else PROBLEMS if problems else ANSWERED


def _progress(files: int, done: int) -> "tqdm[Never]":
    return tqdm(total=files + done, initial=done, unit="file", dynamic_ncols=True)


def _tell_unreadable(found: Iterable[Path | Unreadable], table: Table) -> int:
    """Name each entry that can't be read, on standard error and in the table; return their
    number.
    """
    unreadable = [entry for entry in found if isinstance(entry, Unreadable)]
    for entry in unreadable:
        _say(f"{entry.path}: {entry.reason}")
        table.add_unreadable(str(entry.path), entry.reason)
    return len(unreadable)


def _is_of_the_question(path: Path, answer: Outcome) -> bool:
    """Tell a fault of how was asked from one of the file; an empty file is malformed by itself."""
    return (
        isinstance(answer, ServiceProblem)
        and answer.status in _OF_THE_QUESTION
        and _num_bytes(path) > 0
    )


def _num_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # it was removed meanwhile
        return 0


def _answers(
    client: Client, paths: Iterable[Path], asking: Asking, jobs: int
) -> Generator[tuple[Path, Outcome], None, None]:
    """Ask about files in threads, a few ahead, and give the answers in the files' order."""

    def ask(path: Path) -> Outcome:
        try:
            return client.predict(path, **asking)
        except (ClientError, OSError) as exc:
            return exc

    pool = ThreadPoolExecutor(jobs)
    sent: deque[tuple[Path, Future[Outcome]]] = deque()
    try:
        for path in paths:
            sent.append((path, pool.submit(ask, path)))
            if len(sent) >= _AHEAD * jobs:
                yield _oldest(sent)
        while sent:
            yield _oldest(sent)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        # What is on its way comes to its end before the client closes; closing it ends what still
        # waits to try again.
        wait([future for _, future in sent], timeout=_LAST_ANSWERS_S)


def _oldest(sent: "deque[tuple[Path, Future[Outcome]]]") -> tuple[Path, Outcome]:
    path, future = sent.popleft()
    return path, future.result()


def _asking(options: argparse.Namespace) -> Asking:
    asking: Asking = {}
    if options.model is not None:
        asking["model"] = options.model
    if options.tta:
        asking["tta"] = True
    if options.operating_point is not None:
        asking["operating_point"] = options.operating_point
    if options.prevalence is not None:
        asking["prevalence"] = options.prevalence
    return asking


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cxr-serve", description="Ask a running cxr-serve service."
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    predict = commands.add_parser(
        "predict",
        help="classify files or folders",
        description=_HELP,
        epilog=_EXIT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    predict.add_argument("files", nargs="+", type=Path, metavar="FILE_OR_FOLDER")
    _add_options_of_the_service(predict)
    _add_options_of_the_run(predict)
    return parser


def _add_options_of_the_service(predict: argparse.ArgumentParser) -> None:
    predict.add_argument(
        "--url", default=DEFAULT_URL, help=f"where the service is (default: {DEFAULT_URL})"
    )
    predict.add_argument("--model", help="the model that answers (default: the service's)")
    predict.add_argument("--tta", action="store_true", help="average several views of each image")
    predict.add_argument(
        "--operating-point",
        metavar="NAME",
        help="threshold, such as screen (default: the service's or the model's)",
    )
    predict.add_argument(
        "--prevalence",
        type=float,
        metavar="SHARE",
        help="share of positives among your patients, such as 0.05",
    )
    predict.add_argument(
        "--key", help=f"API key (default: the environment variable {KEY_VARIABLE})"
    )


def _add_options_of_the_run(predict: argparse.ArgumentParser) -> None:
    predict.add_argument(
        "--csv",
        type=Path,
        metavar="OUT",
        help="table to write or to go on with (default: standard output)",
    )
    predict.add_argument(
        "--jobs", type=_count, default=4, metavar="N", help="files in work at once (default: 4)"
    )
    predict.add_argument(
        "--patience",
        type=float,
        default=120.0,
        metavar="SECONDS",
        help="how long to go on trying a file (default: 120)",
    )


def _say(sentence: str) -> None:
    sys.stderr.write(f"{sentence}\n")


def _count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 64:
        raise ValueError(text)
    return number


if __name__ == "__main__":
    sys.exit(main())
