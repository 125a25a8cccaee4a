"""Fixtures for the tests of searches."""

import pytest


@pytest.fixture(autouse=True, scope="session")
def searches_start_at_once(forked_servers):
    pass
