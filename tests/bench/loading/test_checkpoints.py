"""Generated checkpoints. Oracles: model.weights' own list of tensors; and Llama.from_pretrained, which reads them."""

import pytest
import torch

from bench.loading import checkpoints
from bench.loading.checkpoints import SHAPES
from bench.loading.loaders import check_logits
from model import Llama
from model.loading.checkpoint import check, tensor_homes
from model.loading.weights import BUILT_IN, stored_tensors


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_are_those_of_the_model(shape):
    with torch.device("meta"):
        model = Llama(SHAPES[shape])
    stored = {name: tuple(tensor.shape) for name, tensor in stored_tensors(model).items()}
    assert checkpoints.tensors(SHAPES[shape]) == stored
    assert checkpoints.count(SHAPES[shape]) == sum(p.numel() for p in model.parameters())


def test_the_built_in_folder():
    assert checkpoints.BUILT_IN == BUILT_IN


@pytest.mark.parametrize("stored", checkpoints.STORED)
def test_checkpoints_in_shards(tmp_path, stored):
    config = SHAPES["tiny"]
    whole = checkpoints.generate(tmp_path / "whole", config, stored)
    shards = checkpoints.generate(tmp_path / "shards", config, stored, shard=200_000)
    assert len(list(shards.glob("model-*-of-*.safetensors"))) > 2
    check(Llama(config), tensor_homes(shards), shards)
    expected, found = (Llama.from_pretrained(folder, None).state_dict() for folder in (whole, shards))
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert {str(tensor.dtype) for tensor in found.values()} == {f"torch.{stored}"}
    check_logits(shards, "float32")


def test_one_checkpoint_at_a_time(tmp_path):
    folders = checkpoints.Checkpoints(tmp_path, "bfloat16")
    (tmp_path / "1B").mkdir()
    assert folders.folder("storyteller") == BUILT_IN
    assert folders.folder("tiny") == folders.folder("tiny") == tmp_path / "tiny"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny", "warm-up"]
