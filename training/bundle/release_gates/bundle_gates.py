"""Release gates of a whole bundle: it names no folder of this machine, and it opens and answers."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from cxr.bundle import read_bundle
from cxr.errors import BundleError
from cxr.graph import open_graph
from training.bundle.release_gates.gate import ReleaseGate
from training.fit.run_dir import Run


def bundle_gates(draft: Path, run: Run) -> Iterator[ReleaseGate]:
    """Search the draft for folders of this machine, then read it as the service will and let it
    answer its golden inputs.
    """
    yield privacy_gate(draft, _private_texts(run))
    yield opening_gate(draft)


def privacy_gate(folder: Path, private: Iterable[str]) -> ReleaseGate:
    """Search the files of a folder for texts that must not leave this machine: the names of its
    folders.
    """
    contents = {path.name: path.read_bytes() for path in folder.iterdir()}
    telling = sorted(
        {name for text in private for name, content in contents.items() if text.encode() in content}
    )
    return ReleaseGate(
        "nothing of this machine",
        f"local folders named in {', '.join(telling) or 'no file'}",
        not telling,
    )


def opening_gate(folder: Path) -> ReleaseGate:
    """Read a bundle as the service does, and let it answer its golden inputs."""
    name = "the bundle opens and answers its golden inputs"
    try:
        open_graph(read_bundle(folder))
    except BundleError as exc:
        return ReleaseGate(name, str(exc), holds=False)
    return ReleaseGate(name, "all of them", holds=True)


def _private_texts(run: Run) -> set[str]:
    """Return the folders of this machine that no file of the bundle may name."""
    own = (Path.home(), Path.cwd(), run.path, *run.data_dirs)
    folders = {folder.resolve() for folder in own}
    return {str(folder) for folder in folders} - {"/"}
