"""Rewrites of a plan: a rule is `Plan -> Plan`, one file each, and its docstring says why it is sound."""

from collections.abc import Callable

from gdo.optimize.columns import read_needed_columns
from gdo.optimize.conditions import conditions_first
from gdo.optimize.fields import least_varied_first
from gdo.plan import Plan

Rule = Callable[[Plan], Plan]

# Conditions move first: what moves decides which columns are needed where.
RULES: tuple[Rule, ...] = (conditions_first, least_varied_first, read_needed_columns)


def optimize(plan: Plan) -> Plan:
    """The plan after every rule, in order."""
    for rule in RULES:
        plan = rule(plan)
    return plan
