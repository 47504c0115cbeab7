"""The JSON Schema of a pipeline file: what an editor's YAML plugin validates against."""

from typing import Any

from gdo.backend import Backend
from gdo.op import Operator
from gdo.spec import PipelineFile

_Json = dict[str, Any]


def pipeline_schema() -> _Json:
    """The schema of the outer keys, with one branch an operator and one a backend."""
    schema = PipelineFile.model_json_schema(by_alias=True)
    definitions: _Json = schema.setdefault("$defs", {})
    steps = [_branch(definitions, "op", word, kind) for word, kind in sorted(Operator.kinds.items())]
    models = [_branch(definitions, "backend", word, kind) for word, kind in sorted(Backend.kinds.items())]
    properties: _Json = schema["properties"]
    properties["steps"]["items"] = _chosen("op", steps)
    properties["models"]["additionalProperties"] = _chosen("backend", models)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "gdo pipeline"
    return schema


def _branch(definitions: _Json, key: str, word: str, kind: type[Operator] | type[Backend]) -> str:
    branch = kind.model_json_schema(by_alias=True, ref_template="#/$defs/{model}")
    definitions.update(branch.pop("$defs", {}))
    branch["properties"][key] = {"const": word, "description": (kind.__doc__ or "").strip().splitlines()[0]}
    # ${env:...} and ${var:...} may stand for a number or a word: text is allowed wherever a plain value is.
    for name, held in branch["properties"].items():
        if name != key and held.get("type") in {"integer", "number", "boolean"}:
            held["type"] = [held["type"], "string"]
    branch["required"] = sorted({*branch.get("required", []), key})
    definitions[f"{key}-{word}"] = branch
    return f"#/$defs/{key}-{word}"


def _chosen(key: str, branches: list[str]) -> _Json:
    words = [reference.rpartition(f"{key}-")[2] for reference in branches]
    rules = [
        {"if": {"properties": {key: {"const": word}}, "required": [key]}, "then": {"$ref": reference}}
        for word, reference in zip(words, branches, strict=True)
    ]
    return {"type": "object", "required": [key], "properties": {key: {"enum": words}}, "allOf": rules}
