"""Memory as the system tells it. Oracle: tensors of known size."""

from bench.loading import memory
from bench.loading.checkpoints import SHAPES
from bench.loading.schemes import weights_mib
from model import Llama

REST = 4096 * 256 + 11 * 256  # the storyteller's embedding and norms


def test_what_is_available():
    assert 0 < memory.available_mib() < float("inf")
    assert 0 < memory.resident_mib("VmRSS") <= memory.resident_mib("VmHWM")


def test_quantized_weights_are_counted_one_by_one():
    whole, packed = Llama.from_pretrained(), Llama.from_pretrained(quantize="nf4", double_quant=True)
    assert memory.count_weights(packed) == memory.count_weights(whole) == 4_676_352
    assert (
        sum(tensor.nbytes for tensor in memory.weight_tensors(whole)) == 2 * 4_676_352 + 2 * 11 * 256
    )  # norms in float32
    expected = weights_mib(SHAPES["storyteller"], "nf4-double") + 2 * REST / 2**20  # which is float32 here
    assert sum(tensor.nbytes for tensor in memory.weight_tensors(packed)) == expected * 2**20
