"""Score an archive of radiographs into Parquet, on one machine or on a Ray cluster.

    source -> items -> parts -> Ray Data -> score_part -> part-<hash>.parquet -> manifest

Decoding and the graph run through `cxr`, so that a row equals the answer of the service.
Only `ray_job` imports Ray. `read_results` reads the answers.
"""

from bulk.results import read_results

__all__ = ["read_results"]
