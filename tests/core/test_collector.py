import gc

from gdo.collector import SELDOM, rare_collections


def test_collections_are_rare_within_and_as_before_after():
    before = gc.get_threshold()
    with rare_collections():
        assert gc.get_threshold() == SELDOM
    assert gc.get_threshold() == before


def test_a_collector_that_is_off_or_rarer_stays_so():
    before = gc.get_threshold()
    try:
        for chosen in ((0, 10, 10), (50_000, 100, 100)):
            gc.set_threshold(*chosen)
            with rare_collections():
                assert gc.get_threshold() == chosen
            assert gc.get_threshold() == chosen
    finally:
        gc.set_threshold(*before)
