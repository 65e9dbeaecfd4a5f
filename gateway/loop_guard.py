"""Results must never be scored again, whatever an archive's routing sends back.

A result of ours is known by its manufacturer, by its UID in our own table, or by equipment of
ours among the contributors. Reports, presentation states, segmentations and key objects are not
radiographs, and are refused when they arrive (`presentation_contexts`).
"""

import sqlite3

from gateway.header import Facts

OWN_MANUFACTURER = "cxr-serve"
_OWN_SERIES_NUMBERS = frozenset({"9001", "9002"})
_NEVER_SCORED = frozenset({"SR", "PR", "SEG", "KO", "DOC"})


def is_foreign(facts: Facts) -> bool:
    """Tell by the header alone whether an image is a result of this system, or none to score."""
    is_ours = facts.manufacturer == OWN_MANUFACTURER or OWN_MANUFACTURER in facts.contributors
    is_numbered = facts.series_number in _OWN_SERIES_NUMBERS and facts.sop_uid.startswith("2.25.")
    return is_ours or is_numbered or facts.modality in _NEVER_SCORED


def is_own_result(connection: sqlite3.Connection, facts: Facts) -> bool:
    """Tell whether an image is a result of this system, by its header or by our own table."""
    if is_foreign(facts):
        return True
    found = connection.execute(
        "SELECT 1 FROM deliveries WHERE sop_uid = ? LIMIT 1", (facts.sop_uid,)
    ).fetchone()
    return found is not None
