"""A small made bundle whose graph was written node by node: no training, known answers."""

from pathlib import Path

import pytest

from cxr.bundle import Bundle, read_bundle
from tests.bundles import write_made_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A made bundle of 32-pixel inputs, whose logit is the mean grey level."""
    return read_bundle(write_made_bundle(tmp_path, "made", 1))
