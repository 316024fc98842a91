"""The project as a person has it: the scripts in a folder of its own, with nothing made yet."""

from conftest import REPOSITORY

KEPT = {"codes.csv", "configs", "dvc.yaml", "params.yaml", ".dvcignore", "examples", "formats", "networks", "pretrained"}


def link_project(folder):
    """Link the scripts, and what they read, into a folder."""
    for path in REPOSITORY.iterdir():
        if path.name in KEPT or path.suffix in (".py", ".so"):
            (folder / path.name).symlink_to(path)
    return folder
