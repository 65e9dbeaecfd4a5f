"""What a start does before anybody may connect: files and rows are made to agree.

Whatever was acknowledged has both. A row whose file is not whole belongs to an instance that
nobody acknowledged, because the machine stopped between the two: it is dropped, and comes again.
"""

import logging
import sqlite3
import time
from functools import partial

from gateway import deliveries, instances
from gateway.database import Database
from gateway.settings import Destination
from gateway.spool import Spool, digest_of_spooled

logger = logging.getLogger("gateway.recovery")


def recover(database: Database, spool: Spool, destinations: tuple[Destination, ...]) -> None:
    """Drop halves, and give archives time to finish what a crash interrupted."""
    with database.reading() as connection:
        rows = connection.execute(
            "SELECT id, file, digest, state FROM instances WHERE file IS NOT NULL"
        ).fetchall()
    torn = [row for row in rows if row["state"] == "received" and not _is_whole(spool, row)]
    for row in torn:
        database.write("forgotten", partial(instances.forget, instance=row["id"]))
        spool.delete(row["file"])
    known = {row["file"] for row in rows} - {row["file"] for row in torn}
    orphans = spool.delete_unknown(known)
    now = time.time()
    settled = {one.name: now + one.settle_seconds for one in destinations}
    database.write("settled", lambda connection: deliveries.settle(connection, settled))
    names = frozenset(settled)
    homeless = database.write(
        "settled", lambda connection: deliveries.set_aside_removed(connection, names)
    )
    if homeless:
        logger.warning("%d results wait for destinations that are not configured", homeless)
    if torn or orphans:
        logger.warning("dropped %d torn rows and %d files without a row", len(torn), orphans)


def _is_whole(spool: Spool, row: sqlite3.Row) -> bool:
    try:
        return digest_of_spooled(spool.read(row["file"])) == str(row["digest"])
    except FileNotFoundError:
        return False
