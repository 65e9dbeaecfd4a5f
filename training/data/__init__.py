"""From a folder of radiographs to one index, whatever its layout."""

from training.data.index import DataError, DataIndex, IndexRow
from training.data.layout import load_index, load_indexes

__all__ = ["DataError", "DataIndex", "IndexRow", "load_index", "load_indexes"]
