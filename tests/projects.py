"""The project as a person has it: the scripts in a folder of its own, with nothing made yet."""

from conftest import REPOSITORY

READ = {"apps", "codes.csv", "configs", "csrc", "examples", "formats", "networks", "pretrained"}
READ |= {"Makefile", "dvc.yaml", "params.yaml", ".dvcignore"}


def link_project(folder):
    """Link the scripts, and what they read, into a folder."""
    for path in REPOSITORY.iterdir():
        if path.name in READ or path.suffix in (".py", ".so"):
            (folder / path.name).symlink_to(path)
    return folder
