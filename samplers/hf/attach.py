"""One line per model: afterwards its `generate(do_sample=True)` draws with this engine."""

from __future__ import annotations

import functools
from typing import Any

import torch  # noqa: F401  (for the doctest)
from transformers import GenerationMixin

from samplers.batch import Integers, Params
from samplers.hf.chain import sampling_params
from samplers.hf.decoding import decode, step_aside, warn_if_left_alone
from samplers.hf.options import Options, checked


def attach(
    model: Any,
    params: Params = None,
    *,
    seed: Integers | None = None,
    stream: Integers | None = None,
    backend: str = "auto",
) -> Any:
    """Make a transformers model draw with this engine and return the model. A second call replaces the first.

    Args:
        model: anything with transformers' `generate`, also behind `torch.compile` or PEFT.
        params: SamplingParams that replace generate's temperature, top_k, top_p, ..., one for all rows or one per row;
            None: generate's own, call by call.
        seed: int or one per row; the same at every call. None: drawn from torch's generator at every call, which
            `torch.manual_seed` and transformers' `set_seed` control.
        stream: int64, one per row; a row with the same stream draws the same tokens in any batch. None: the row number.
        backend: "auto", "reference", "native" or "triton".

    A row is a sequence: prompts times num_return_sequences. The decode step is the draw's position: the token is that
    of `samplers.sample(logits, params, seed=seed, position=step, stream=stream)`.

    Raises: TypeError or ValueError naming the argument; TypeError for a model without transformers' generate. While
        generating: ValueError for sampling options out of range, InvalidLogits with the row and the step.

    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> sizes = dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=50)
    >>> model = attach(LlamaForCausalLM(LlamaConfig(**sizes)), seed=0)
    >>> ids = torch.tensor([[1, 2, 3]])
    >>> first, second = (model.generate(ids, do_sample=True, max_new_tokens=5, pad_token_id=0) for _ in range(2))
    >>> torch.equal(first, second)
    True
    """
    options = checked(params, seed, stream, backend)
    target = generating_model(model)
    target.__class__ = attached_class(base_of(target))
    target._samplers_hf = options
    return model


def detach(model: Any) -> Any:
    """Undo `attach` and return the model. A model that is not attached does not change."""
    target = generating_model(model)
    if isinstance(target, Attached):
        target.__class__ = base_of(target)
        vars(target).pop("_samplers_hf", None)
    return model


class Attached:
    """A mixin before a model's class: generate calls these methods, which look at the options first.

    Another instance of the class has no options and behaves like an instance of the model's own class.
    """

    _samplers_hf: Options | None = None

    def _validate_generation_mode(self, generation_mode: Any, generation_config: Any, *arguments: Any) -> None:
        if self._samplers_hf is not None:
            if generation_config.do_sample and self._samplers_hf.params is None:
                sampling_params(generation_config)
            warn_if_left_alone(generation_mode.value, generation_config)
        super()._validate_generation_mode(generation_mode, generation_config, *arguments)  # type: ignore[misc]

    def _sample(self, *arguments: Any, **kwargs: Any) -> Any:
        loop, options = super()._sample, self._samplers_hf  # type: ignore[misc]
        return loop(*arguments, **kwargs) if options is None else decode(loop, options, *arguments, **kwargs)

    def init_continuous_batching(self, *arguments: Any, **kwargs: Any) -> Any:
        manager = super().init_continuous_batching(*arguments, **kwargs)  # type: ignore[misc]
        if self._samplers_hf is None:
            return manager
        try:
            from samplers.hf import continuous
        except ImportError:  # the first versions of transformers 5
            step_aside("continuous batching of this version of transformers")
            return manager
        return continuous.install(manager, self._samplers_hf)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """For pickle and copy: they would look up this class by the name of the model's own class."""
        return restored, (base_of(self),), self.__dict__


@functools.cache
def attached_class(base: type) -> type:
    """The model's class with `Attached` before it, under the same name: pipelines and checkpoints use the name."""
    attributes = {name: getattr(base, name) for name in ("__module__", "__qualname__", "__doc__")}
    return type(base.__name__, (Attached, base), attributes)


def base_of(model: Any) -> type:
    """The model's own class."""
    return type(model).__mro__[2] if isinstance(model, Attached) else type(model)


def restored(base: type) -> Any:
    attached: Any = attached_class(base)
    return attached.__new__(attached)


def generating_model(model: Any) -> Any:
    """The model whose `_sample` generate calls, without the wrapper of torch.compile or PEFT."""
    inner = getattr(model, "_orig_mod", model)
    inner = inner.get_base_model() if hasattr(inner, "get_base_model") else inner
    if not isinstance(inner, GenerationMixin):
        raise TypeError(f"model must be a transformers model with generate, got {type(model).__name__}")
    return inner
