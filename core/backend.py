"""How a model is declared in a pipeline: `models:` maps a name to a backend and its options."""

from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from gdo.errors import Faults, nearest
from gdo.model import Model

DEFAULT_MODEL = "local"


class Price(BaseModel):
    """What a million tokens cost, in a currency of the user's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: float = Field(ge=0, description="For a million tokens of prompts")
    completion: float = Field(ge=0, description="For a million tokens of replies")


class Backend(BaseModel):
    """One backend's options; a subclass stands in `models/`, one file each."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    kinds: ClassVar[dict[str, type["Backend"]]] = {}
    kind: ClassVar[str] = ""

    backend: str = Field(description="The backend")
    price: Price | None = Field(
        default=None, description="For `gdo plan --estimate`: {prompt, completion} a million tokens"
    )

    def __init_subclass__(cls, kind: str = "") -> None:
        """Register the backend under its word in YAML."""
        super().__init_subclass__()
        if kind:
            cls.kind = kind
            Backend.kinds[kind] = cls

    def build(self, folder: Path) -> Model:
        """The model, not yet started; `folder` is that of the pipeline file."""
        raise TypeError(f"{self.kind} builds no model")

    def fault(self, folder: Path) -> str:
        """What is wrong with these options here, as far as a look at files can tell; an empty text for nothing."""
        return ""

    @classmethod
    def ready(cls) -> str:
        """Why it cannot be used here; an empty text when it can."""
        return ""


def resolve(name: str, declared: dict[str, Backend]) -> Backend:
    """The backend that a step's `model:` names: one of `models:`, a backend by its word, or a path to a GGUF file.

    Raises:
        Faults: there is none (no place in the finding).
    """
    if name in declared:
        return declared[name]
    if name.endswith(".gguf"):
        return Backend.kinds["local"].model_validate({"backend": "local", "model": name})
    usable = {word for word, kind in Backend.kinds.items() if not _needs_options(kind)}
    if name in usable:
        return Backend.kinds[name].model_validate({"backend": name})
    raise Faults.one("", f"no model named '{name}'", nearest(name, {*declared, *usable}))


def _needs_options(kind: type[Backend]) -> bool:
    return any(field.is_required() for name, field in kind.model_fields.items() if name != "backend")
