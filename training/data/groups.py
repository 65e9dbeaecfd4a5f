"""Group tables: which images show one person, if neither file names nor headers state it."""

from pathlib import Path

from training.data.index import DataError, read_table

COLUMNS = ("ImageId", "person_group")


def read_groups(path: Path) -> dict[str, str]:
    """Read a table of image ids and their person groups; raises `DataError`."""
    if not path.is_file():
        raise DataError(f"{path} is no file; expected a csv with the columns {', '.join(COLUMNS)}")
    groups: dict[str, str] = {}
    for number, line in enumerate(read_table(path), start=2):
        if any(not line.get(name) for name in COLUMNS):
            raise DataError(
                f"{path} line {number} lacks {' or '.join(COLUMNS)}: name both columns, and fill "
                f"both in every line"
            )
        if groups.setdefault(line["ImageId"], line["person_group"]) != line["person_group"]:
            raise DataError(
                f"{path} line {number}: {line['ImageId']} is already in another group; join the "
                f"two or drop the line"
            )
    return groups
