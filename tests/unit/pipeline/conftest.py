"""The project's study, for tests of what follows from it."""

import pytest

from leap_repro.pipeline.grid import read_study


@pytest.fixture
def study(config):
    """The study of the project's own configuration."""
    return read_study(config)
