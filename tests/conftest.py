"""Shared by all tests: seeded randomness and the folder of real recordings."""

import os
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def rng():
    return np.random.default_rng(20240607)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real recordings named by ECG_TEST_DATA; the test is skipped where there is none."""
    folder = os.environ.get("ECG_TEST_DATA")
    if not folder:
        pytest.skip("needs real recordings: set ECG_TEST_DATA to a folder that holds mitdb/, ptb-xl/, ...")
    return Path(folder)
