"""Fixtures shared by every test module."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data():
    """Folder with the real data sets; they are not part of the project, so outside CI a test without them skips."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        if os.environ.get("ALSCORE_REQUIRE_DATA"):
            pytest.fail("ALSCORE_REQUIRE_DATA is set, but ../shared/data does not exist beside the checkout")
        pytest.skip("real data not available (../shared/data)")
    return folder
