"""The transformers backend: models draw with this engine, and nothing else changes.

    attach(model, seed=0)                                                     one line per model; `detach` undoes it
    model.generate(ids, do_sample=True, custom_generate=generate, seed=0)     one argument per call
    LogitsProcessorList([TopPLogitsWarper(0.9)])                              single processors
    LogitsProcessorList([GrammarLogitsProcessor(grammar, tokenizer)])         texts that follow a grammar

`generate` keeps its loop, processors, criteria, caches and streamers. One fused call replaces its warpers, softmax and
multinomial: `chain` finds the part to replace, `fused` draws, `decoding` runs generate's loop (called by `attach` and
`call`), `continuous` is for `generate_batch`. The engine does not support beam sampling, assisted decoding and unknown
sampling options. It leaves them to transformers, with a warning that names them.
"""

from samplers.extras import how_to_install

try:
    import transformers  # noqa: F401
except ImportError as error:
    raise ImportError(f"samplers.hf needs transformers 5: {how_to_install('transformers')}") from error

from samplers.hf.attach import attach, detach
from samplers.hf.call import generate
from samplers.hf.grammar import GrammarLogitsProcessor
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
    "GrammarLogitsProcessor",
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
