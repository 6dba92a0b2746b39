"""The transformers backend: models draw with this engine, and everything else goes on as before.

    attach(model, seed=0)                                                     one line for a model; `detach` undoes it
    model.generate(ids, do_sample=True, custom_generate=generate, seed=0)     one argument for a call
    LogitsProcessorList([TopPLogitsWarper(0.9)])                              single processors

`generate` keeps its own loop, processors, criteria, caches and streamers. Where it would call its warpers, softmax and
multinomial, one fused call draws: see `chain` (what is replaced), `fused` (by what), `decoding` (in whose loop;
`attach` and `call` lead there), `continuous` (`generate_batch`). What the engine can't take part in it leaves to
transformers, with a warning that names it: beam sampling, assisted decoding, options that it doesn't know.
"""

from samplers.extras import how_to_install

try:
    import transformers  # noqa: F401
except ImportError as error:
    raise ImportError(f"samplers.hf needs transformers 5: {how_to_install('transformers')}") from error

from samplers.hf.attach import attach, detach
from samplers.hf.call import generate
from samplers.hf.warpers import (
    EpsilonLogitsWarper,
    EtaLogitsWarper,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

__all__ = [
    "EpsilonLogitsWarper",
    "EtaLogitsWarper",
    "MinPLogitsWarper",
    "RepetitionPenaltyLogitsProcessor",
    "TemperatureLogitsWarper",
    "TopKLogitsWarper",
    "TopPLogitsWarper",
    "TypicalLogitsWarper",
    "attach",
    "detach",
    "generate",
]
