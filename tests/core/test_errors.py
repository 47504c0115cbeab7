import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdo import errors
from gdo.errors import Faults, Finding, nearest


def test_a_finding_reads_place_fault_and_hint():
    assert (
        str(Finding("p.yaml:3:5", "unknown key 'x'", "did you mean 'y'?"))
        == "p.yaml:3:5: unknown key 'x' (did you mean 'y'?)"
    )
    assert str(Finding("p.yaml:3:5", "is empty")) == "p.yaml:3:5: is empty"


def test_faults_hold_all_findings_a_line_each():
    error = Faults([Finding("a", "b"), Finding("c", "d", "e")])
    assert str(error) == "a: b\nc: d (e)"
    assert len(error.findings) == 2


@pytest.mark.parametrize(
    ("kind", "status"),
    [("Faults", 2), ("ModelUnready", 2), ("RunFailed", 1), ("BudgetSpent", 1), ("Stopped", 1), ("GdoError", 1)],
)
def test_each_error_knows_its_exit_status_and_its_root(kind, status):
    found = getattr(errors, kind)
    assert found.exit_status == status
    assert issubclass(found, errors.GdoError)


def test_a_stopped_run_is_a_failed_run():
    assert issubclass(errors.BudgetSpent, errors.RunFailed)
    assert issubclass(errors.Stopped, errors.RunFailed)


def test_nearest_forgives_case():
    assert nearest("Title", ["title", "price"]) == "did you mean 'title'?"
    assert nearest("TITLE", ["title", "price"]) == "did you mean 'title'?"


def test_nearest_lists_what_is_known_when_nothing_is_near():
    assert nearest("zzz", ["b", "a", "b"]) == "known: a, b"
    assert nearest("zzz", []) == ""


def test_nearest_shows_twenty_names_of_many():
    hint = nearest("zzz", [f"name_{i:03}" for i in range(100)])
    assert hint.count("name_") == 20
    assert hint.endswith(", ...")


@given(st.text(max_size=20), st.lists(st.text(max_size=10), max_size=30))
def test_nearest_always_answers(word, known):
    assert isinstance(nearest(word, known), str)


def test_faults_travel_between_processes():
    error = pickle.loads(pickle.dumps(Faults([Finding("a", "b", "c")])))  # noqa: S301 (our own bytes)
    assert str(error) == "a: b (c)"
