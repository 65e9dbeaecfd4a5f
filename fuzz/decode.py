"""Fuzz `cxr.decode`, guided by coverage of our code, pydicom and Pillow's parsers.

    make fuzz SECONDS_TO_FUZZ=1800          (or: python -m fuzz.decode CORPUS -max_total_time=1800)

An `ImageError` is an answer; anything else is a finding: another exception, more than
2 seconds of processor time, five minutes, more than 1 GB.  Options on the command line overrule
the ones below.  libFuzzer writes the input beside the corpus; make it a test in
tests/cxr/test_resource_limits.py.  This is no test of the native codecs themselves, which are not
instrumented: they are why the slow ones run in processes that can be stopped.
"""

import sys
import time
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["cxr", "pydicom", "PIL"]):
    from cxr.decode import DecodeLimits, decode, quiet_libraries
    from cxr.errors import ImageError, NeedsWorker
    from cxr.radiograph import Radiograph

LIMITS = DecodeLimits(max_pixels=4_000_000, max_inflated_bytes=32 * 2**20)
"""Smaller than the service's, so that a run spends its time on parsing and not on painting."""


MAX_SECONDS = 2.0
"""Most processor time of one input; the clock on the wall says little on a busy machine."""

_OPTIONS = ("-timeout=300", "-rss_limit_mb=1024", "-max_len=65536")


def test_one_input(data: bytes) -> None:
    """Decode one input; whatever it raises but `ImageError` is a finding."""
    started = time.process_time()
    try:
        _check(data)
    finally:
        assert time.process_time() - started < MAX_SECONDS


def _check(data: bytes) -> None:
    try:
        radiograph = _decode(data)
    except ImageError:
        return
    expected = tuple(
        -(-side // radiograph.reduction)
        for side in (radiograph.processing.rows, radiograph.processing.columns)
    )
    assert radiograph.pixels_HW.shape == expected


def _decode(data: bytes) -> Radiograph:
    """Take the way of the service: in a thread, or else where decoding can be stopped."""
    try:
        return decode(data, limits=LIMITS, size=224, can_be_stopped=False)
    except NeedsWorker:
        return decode(data, limits=LIMITS, size=224)


def main() -> None:
    """Run libFuzzer on the corpus folder that is the first argument, filled with seeds if it is
    new.
    """
    corpus = Path(sys.argv[1])
    if not corpus.exists():
        from fuzz.seeds import write_seeds  # noqa: PLC0415

        write_seeds(corpus)
    quiet_libraries()
    atheris.Setup([sys.argv[0], *_OPTIONS, *sys.argv[1:]], test_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
