import pytest

from training.bundle.manifest import portable


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("train smoke --data /home/me/films --out runs/a", "train smoke --data films --out runs/a"),
        ("--data /home/me/films=0.5", "--data films=0.5"),
        ("--set init_weights=/home/me/w.pth", "--set init_weights=w.pth"),
        ("--set lr=0.1", "--set lr=0.1"),
    ],
)
def test_a_bundles_command_names_no_folder_of_the_machine(given: str, kept: str) -> None:
    assert portable(given) == kept
