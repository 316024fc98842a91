"""Setuptools, except that an editable install asks for what the scripts need.

Only a source tree has the scripts. A wheel holds the extension alone, which needs NumPy and nothing else.
"""

import os
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import (
    build_sdist,
    build_wheel,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]


def build_editable(*arguments: Any, **more: Any) -> str:
    os.environ["PQRST_SCRIPTS"] = "1"  # setup.py looks at it; each hook runs in a process of its own
    return build_meta.build_editable(*arguments, **more)


def prepare_metadata_for_build_editable(*arguments: Any, **more: Any) -> str:
    os.environ["PQRST_SCRIPTS"] = "1"
    return build_meta.prepare_metadata_for_build_editable(*arguments, **more)
