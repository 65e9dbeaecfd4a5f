"""What an archive can be asked, and how it can fail: the same for STOW-RS and C-STORE."""

from dataclasses import dataclass
from typing import Protocol

_TEMPORARY = range(0xA700, 0xA800)
"""Out of resources (PS3.4 B.2.3): the same object may be taken later."""

DUPLICATE = 0x0111
"""The archive has an object of this UID (PS3.7 C.5.6); our UIDs name one content each."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An object as an archive files it."""

    class_uid: str
    sop_uid: str
    series_uid: str
    study_uid: str


class ArchiveDown(Exception):
    """The archive can't be reached, hung up, or answers nobody; others need not try now."""

    def __init__(self, reason: str, *, nothing_sent: bool = False) -> None:
        super().__init__(reason)
        self.nothing_sent = nothing_sent
        """Whether it is certain that the archive has received nothing of this try."""


class Rejected(Exception):
    """The archive answers, and does not take this object."""

    def __init__(self, reason: str, *, may_pass: bool) -> None:
        super().__init__(reason)
        self.reason, self.may_pass = reason, may_pass


class Archive(Protocol):
    """One destination, used by one thread."""

    def store(self, content: bytes) -> None:
        """Store an object; raises `ArchiveDown` or `Rejected`."""

    def holds(self, what: Stored) -> bool:
        """Ask whether the archive holds an object; raises `ArchiveDown` or `Rejected`."""

    def rest(self) -> None:
        """Give back what is only needed while there is work."""

    def close(self) -> None:
        """Close every connection."""


def rejected(status: int) -> Rejected:
    """Return what a status of C-STORE, or a Failure Reason of STOW-RS, means to us."""
    return Rejected(f"status_{status:04X}", may_pass=status in _TEMPORARY)
