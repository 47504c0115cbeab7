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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of the bundled model run one after the other: two engines at once would starve each other of cores."""
    for item in items:
        if item.get_closest_marker("model"):
            item.add_marker(pytest.mark.xdist_group("model"))
