"""docs/examples/ray_prompts.py with a stand-in for Ray Data: its file is that of `alea generate`, however it stops."""

import json
import random
import runpy
import sys
import types
from pathlib import Path

import pytest

from model import Llama, Tokenizer, generate
from model.cli import main
from tests.test_architecture import ROOT

EXAMPLE = ROOT / "docs/examples/ray_prompts.py"
PROMPTS = ["The king", "A queen", "Once", "The old woman", "There was", "Far away", "The fox said"]
SEED, TOKENS = 7, 6


class Killed(BaseException):
    """As SIGKILL: nothing of the example catches it."""


class Blocks:
    """As much of ray.data's Dataset as the example uses, whose blocks are ready in a random order."""

    def __init__(self, blocks, left=10**6):
        self.blocks, self.left = blocks, left

    def map_batches(self, function, batch_size, batch_format):
        assert batch_size is None and batch_format == "pyarrow"  # a block is a batch
        for block in random.Random(1).sample(self.blocks, len(self.blocks)):
            if not self.left:
                raise Killed
            self.left -= 1
            function(Table(block))
        return self

    def materialize(self):
        pass


class Table:
    def __init__(self, rows):
        self.rows = rows

    def to_pylist(self):
        return self.rows

    def select(self, names):
        return Table([{name: row[name] for name in names} for row in self.rows])


class Vllm:
    """ray.data.llm's processor: `alea`'s own generation, asked as vLLM is. `asked` holds the numbers of the prompts."""

    def __init__(self, asked, stop_after):
        self.asked, self.stop_after = asked, stop_after
        self.llama, self.tokenizer = Llama.from_pretrained(), Tokenizer.from_pretrained()

    def build_processor(self, config, preprocess, postprocess):
        assert config["engine_kwargs"]["logits_processors"] == ["samplers.vllm:Draw"]

        def processor(dataset):
            blocks = [[self.drawn(row, preprocess, postprocess) for row in block] for block in dataset.blocks]
            return Blocks(blocks, self.stop_after)

        return processor

    def drawn(self, row, preprocess, postprocess):
        asked = preprocess(row)
        params = dict(asked["sampling_params"])
        params |= {"max_new_tokens": params.pop("max_tokens"), "stream": [params.pop("extra_args")["stream"]]}
        self.asked.append(row["number"])
        ((text,),) = generate(self.llama, self.tokenizer, asked["prompt"], do_sample=True, **params)
        return postprocess({**row, "generated_tokens": text.ids, "generated_text": text.text})


def stand_in(monkeypatch, stop_after=10**6):
    """Returns the numbers of the prompts that are asked for, in the course of time."""
    asked = []
    vllm = Vllm(asked, stop_after)
    llm = types.SimpleNamespace(build_processor=vllm.build_processor, vLLMEngineProcessorConfig=dict)

    def from_items(rows, override_num_blocks):
        size = -(-len(rows) // override_num_blocks)
        return Blocks([rows[start : start + size] for start in range(0, len(rows), size)])

    ray = types.SimpleNamespace(data=types.SimpleNamespace(from_items=from_items, llm=llm))
    for name, module in (("ray", ray), ("ray.data", ray.data), ("ray.data.llm", llm)):
        monkeypatch.setitem(sys.modules, name, module)
    return asked


@pytest.fixture
def example(monkeypatch, tmp_path):
    """Runs the example with options in a folder that has prompts.txt."""
    names = runpy.run_path(str(EXAMPLE))
    names["SAMPLING"]["max_tokens"] = TOKENS
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))

    def run(*options):
        words = [str(EXAMPLE), "--prompts", str(tmp_path / "prompts.txt"), "--out", str(tmp_path / "out")]
        monkeypatch.setattr(sys, "argv", [*words, "--model", str(ROOT / "model/storyteller"), *options])
        names["main"]()
        return tmp_path / "out" / "texts.jsonl"

    return types.SimpleNamespace(
        run=run, **{name: names[name] for name in ("write_part", "finished", "join", "ENGINE")}
    )


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("block", ["1", "3", "100"])
def test_its_file_is_that_of_alea_generate(block, example, monkeypatch, tmp_path, capsys):
    expected = tmp_path / "expected.jsonl"
    options = f"-n {TOKENS} --seed {SEED} --temperature 0.8 --top-k 50 --top-p 0.95".split()
    assert main(["generate", "-f", str(tmp_path / "prompts.txt"), "--out", str(expected), *options]) == 0
    stand_in(monkeypatch)
    found = lines(example.run("--block", block))
    assert found == [{name: line[name] for name in found[0]} for line in lines(expected)]


@pytest.mark.parametrize("written", [0, 1, 2])
def test_a_killed_run_goes_on_without_what_is_written(written, example, monkeypatch, tmp_path, capsys):
    stand_in(monkeypatch)
    whole = example.run("--block", "100").read_text()
    (tmp_path / "out").rename(tmp_path / "whole")

    stand_in(monkeypatch, stop_after=written)
    with pytest.raises(Killed):
        example.run("--block", "3")
    done = set(example.finished(tmp_path / "out"))
    (tmp_path / "out/.alea-0123").write_text('{"prompt_number": 6, "te')  # what was being written
    asked = stand_in(monkeypatch)
    assert example.run("--block", "2").read_text() == whole
    assert sorted(asked) == sorted(set(range(len(PROMPTS))) - done) and (not written or done)


def test_a_finished_folder_is_only_joined(example, monkeypatch, tmp_path, capsys):
    stand_in(monkeypatch)
    whole = example.run().read_text()
    (tmp_path / "out/texts.jsonl").unlink()
    asked = stand_in(monkeypatch)
    assert example.run().read_text() == whole
    assert not asked


def test_other_settings_are_refused(example, monkeypatch, tmp_path, capsys):
    stand_in(monkeypatch)
    example.run()
    with pytest.raises(SystemExit, match="other prompts or settings"):
        example.run("--seed", "8")
    example.ENGINE["dtype"] = "bfloat16"
    with pytest.raises(SystemExit, match="other prompts or settings"):
        example.run()
    example.ENGINE["dtype"] = "float32"
    example.run()
    (tmp_path / "prompts.txt").write_text("Another")
    with pytest.raises(SystemExit, match="other prompts or settings"):
        example.run()


def test_a_line_in_two_parts_is_joined_once(example, tmp_path):
    rows = [{"prompt_number": number} for number in range(4)]
    example.write_part(tmp_path, rows[1:3])
    example.write_part(tmp_path, rows[2:])
    example.write_part(tmp_path, rows[:1])
    example.write_part(tmp_path, [])
    example.join(tmp_path, 4)
    assert lines(tmp_path / "texts.jsonl") == rows


def test_a_missing_line_is_named(example, tmp_path):
    example.write_part(tmp_path, [{"prompt_number": 0}, {"prompt_number": 3}])
    with pytest.raises(SystemExit, match=r"2 texts are missing .* number 1"):
        example.join(tmp_path, 4)
    assert not (tmp_path / "texts.jsonl").exists()
