"""A number in a query or a header, as people write it."""

import re
from typing import Annotated

from pydantic import BeforeValidator

_DECIMAL = re.compile(r"\d+(\.\d*)?|\.\d+", re.ASCII)


def _check_decimal(value: object) -> object:
    """Refuse what Python reads as a number and people do not: 5_0, spaces, signs, other digits."""
    if isinstance(value, str) and not _DECIMAL.fullmatch(value):
        raise ValueError("must be a decimal number")
    return value


DecimalNumber = Annotated[float, BeforeValidator(_check_decimal)]
