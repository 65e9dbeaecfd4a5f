"""The same model in other servers, each tuned for two cores and none made of straw.

All read an upload, run the graph and answer by the functions of `reading`, so that
what differs is the serving.  Each module runs by itself: `python -m bench.peers.NAME`,
with `BENCH_PORT` and what `reading` names in the environment.
"""
