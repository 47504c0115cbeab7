"""A SQL condition goes before a prompt."""

from dataclasses import replace

from gdo.op import Rows, Scope
from gdo.plan import Node, Plan, replanned


def conditions_first(plan: Plan) -> Plan:
    """Move `SELECT * FROM input WHERE ...` ahead of prompts that do not write what it reads.

    Sound because such a step keeps or drops each row by its own values, a prompt step of rows SAME or SUBSET answers
    each row by its own values too, and neither changes what the other sees: the same rows come out, and fewer are
    asked. A prompt that another step or sink reads as well, or that stops the run on an error, is not passed.
    """
    moved = True
    while moved:
        moved = False
        for condition in plan.nodes:
            prompt = next((node for node in plan.nodes if node.id == condition.input), None)
            if prompt is not None and _may_pass(plan, condition, prompt):
                plan, moved = _swapped(plan, condition, prompt), True
                break
    return plan


def _may_pass(plan: Plan, condition: Node, prompt: Node) -> bool:
    decides = condition.op.decides_by()
    if decides is None or condition.op.where is not None or condition.op.from_ is not None:
        return False
    op = prompt.op
    if not op.asks or op.scope is not Scope.BATCH or op.rows is Rows.ANY or op.on_error == "fail":
        return False
    written = {field.name.lower() for field in op.adds(plan.schema(prompt.input))}
    return not any(name.lower() in written for name in decides) and len(plan.readers(prompt.id)) == 1


def _swapped(plan: Plan, condition: Node, prompt: Node) -> Plan:
    first, second = replace(condition, input=prompt.input), replace(prompt, input=condition.id)
    nodes = [first if node.id == prompt.id else second if node.id == condition.id else node for node in plan.nodes]
    follow = {condition.id: prompt.id}
    nodes = [
        node if node.id in {first.id, second.id} else replace(node, input=follow.get(node.input, node.input))
        for node in nodes
    ]
    sinks = tuple(replace(sink, input=follow.get(sink.input, sink.input)) for sink in plan.sinks)
    return replanned(replace(plan, sinks=sinks), nodes)
