"""Oracle: a fingerprint changes with each thing that can change an answer, and with nothing else."""

import json
import shutil
from pathlib import Path

from model import Llama
from model.config import BUILT_IN
from model.serve.fingerprint import fingerprint

LLAMA = Llama.from_pretrained()


def test_what_changes_it(tmp_path):
    folder = Path(shutil.copytree(BUILT_IN, tmp_path / "model"))
    seen = {fingerprint(LLAMA, {"model": folder}, {"dtype": "float32"})}
    assert seen == {fingerprint(LLAMA, {"model": BUILT_IN}, {"dtype": "float32"})}
    (folder / "README.md").write_text("other words")
    assert seen == {fingerprint(LLAMA, {"model": folder}, {"dtype": "float32"})}
    seen.add(fingerprint(LLAMA, {"model": folder}, {"dtype": "bfloat16"}))
    seen.add(fingerprint(LLAMA, {"model": folder, "adapter": folder}, {"dtype": "float32"}))
    seen.add(fingerprint(Llama.from_pretrained().unpack(), {"model": folder}, {"dtype": "float32"}))
    config = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(config | {"top_p": 0.5}))
    seen.add(fingerprint(LLAMA, {"model": folder}, {"dtype": "float32"}))
    weights = next(folder.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    seen.add(fingerprint(LLAMA, {"model": folder}, {"dtype": "float32"}))
    assert len(seen) == 6
