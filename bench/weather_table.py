"""The table of `bench.weather`: a row a figure, a column a server."""

from bench.figures import Figures

ROWS = {
    "c16_deadline_ratio": "answers of 16 connections with a deadline / without",
    "stall_recovery_s": "s to recover from a stop of 4 s",
    "stall_idle_answers": "idle server answers after the stop",
    "hogs_recovery_s": "s to recover from 8 s of busy neighbours",
    "hogs_idle_answers": "idle server answers after them",
    "slow_start_recovery_s": "s to recover from a start beside busy neighbours",
    "half_goodput_share": "goodput on one core / half of the capacity",
    "slow_disk_goodput": "share in time while the disk gives 1 MB/s",
    "slow_disk_recovery_s": "s to recover from 8 s of it",
    "little_memory_ratio": "answers with a tenth more memory than it had / without a limit",
}


def table(found: dict[str, Figures]) -> str:
    """Write the figures as a Markdown table, a server a column."""
    names = list(found)
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for key, title in ROWS.items():
        cells = [f"{found[name][key]:.2f}" if key in found[name] else "-" for name in names]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
