"""From a folder of radiographs to one index, whatever its layout."""

from training.datasets.index import DataError, DataIndex, IndexRow
from training.datasets.layout import load_index

__all__ = ["DataError", "DataIndex", "IndexRow", "load_index"]
