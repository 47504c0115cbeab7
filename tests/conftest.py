"""What every folder of tests shares."""

import pytest
from hypothesis import HealthCheck, settings

from gdo import api

settings.register_profile("gdo", deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
settings.load_profile("gdo")


@pytest.fixture(scope="session", autouse=True)
def _wings() -> None:
    """Operators and backends are known by their words in every test."""
    api.register_wings()
