"""The body of a request: no field of it is ignored in silence."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema

from model.serve.api.errors import Refusal

StopString = Annotated[str, Field(min_length=1, max_length=1000)]
WithoutEffect = Annotated[Any, Field(description="accepted, without effect on the answer")]


def only(*accepted: Any, why: str) -> Any:
    """The type of a field that would change the answer and is not served; null is accepted in any case."""

    def check(value: Any) -> Any:
        if value is not None and not any(value == one and type(value) is type(one) for one in accepted):
            raise ValueError(why)
        return value

    schema = {"enum": [None, *accepted], "description": why}
    return Annotated[Any, AfterValidator(check), WithJsonSchema(schema)]


class Body(BaseModel):
    """The body of a request."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())

    def one_of(self, *names: str) -> str:
        """Of several names for one thing, that which is given, or the first. Raises: Refusal for two that differ."""
        given = [name for name in names if getattr(self, name) is not None]
        if len({getattr(self, name) for name in given}) > 1:
            raise Refusal(400, f"{given[1]} must be null or the same where {given[0]} is given", given[1])
        return (given or names)[0]
