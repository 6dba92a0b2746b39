"""A file that was stopped anywhere is resumed, to the same file as that of a run without a stop."""

import io
import json
import os
from pathlib import Path

import pytest

from model import Llama, Tokenizer, generate
from model.cli import main
from model.commands.generation_file import GenerationFile
from model.decoding import batches

TEXTS = ["A", "Once upon a time there lived", "The wolf", "She said that the old man", "Ä king"]
OPTIONS = ("-n", "6", "--top-p", "0.9", "--batch-size", "2", "-r", "2")


@pytest.fixture
def prompts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.txt").write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    return tmp_path


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    status = main(("generate", *arguments))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def interrupt_after(monkeypatch, calls: int) -> None:
    """A Ctrl-C in the batch after so many."""
    real, made = batches.generate_batch, []

    def generate(*arguments, **options):
        if len(made) == calls:
            raise KeyboardInterrupt
        made.append(None)
        return real(*arguments, **options)

    monkeypatch.setattr(batches, "generate_batch", generate)


def test_the_lines_are_those_of_json_in_the_order_of_the_prompts(capsys, prompts):
    status, out, err = run(capsys, "-f", "prompts.txt", "-o", "out.jsonl", "--seed", "5", *OPTIONS)
    assert (status, out, err) == (0, "", "wrote out.jsonl: 10 texts of 5 prompts\n")
    written = [json.loads(line) for line in (prompts / "out.jsonl").read_text().splitlines()]
    assert [line.pop("prompt_number") for line in written] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    shown = run(capsys, "-f", "prompts.txt", "--json", "--seed", "5", *OPTIONS)[1]
    assert written == [json.loads(line) for line in shown.splitlines()]
    assert list(prompts.glob("*.part")) == []


@pytest.mark.parametrize(
    "calls", [pytest.param(0, marks=pytest.mark.exhaustive), 1, pytest.param(2, marks=pytest.mark.exhaustive)]
)
@pytest.mark.parametrize("cut", [pytest.param(0, marks=pytest.mark.exhaustive), 5])
def test_after_a_ctrl_c_the_same_command_goes_on(capsys, monkeypatch, prompts, calls, cut):
    """Also where the process was killed within a line."""
    command = ("-f", "prompts.txt", "--seed", "5", *OPTIONS)
    run(capsys, *command, "-o", "whole.jsonl")
    with monkeypatch.context() as patch:
        interrupt_after(patch, calls)
        status, _, err = run(capsys, *command, "-o", "out.jsonl")
    assert status == 130
    assert (
        err == f"stopped: {min(2 * calls, 5)} of 5 prompts are in out.jsonl.part; the same command goes on from there\n"
    )
    part = prompts / "out.jsonl.part"
    if cut and calls:
        part.write_bytes(part.read_bytes()[:-cut])
    drawn = []
    monkeypatch.setattr(batches, "generate_batch", spy(batches.generate_batch, drawn))
    status, _, err = run(capsys, *command, "-o", "out.jsonl")
    assert status == 0 and ("going on after" in err) == bool(calls)
    assert sum(drawn) == 5 - 2 * calls + bool(cut and calls)  # nothing is drawn twice but what was cut
    assert texts_of(prompts / "out.jsonl") == texts_of(prompts / "whole.jsonl")


def texts_of(path: Path) -> list[tuple[int, int, list[int]]]:
    """Without the logprobs, whose last digits the model's float32 gives to the batch."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [(line["prompt_number"], line["stream"], line["ids"]) for line in lines]


def spy(generate, drawn: list[int]):
    def counting(model, tokenizer, prompt_ids, *others):
        drawn.append(len(prompt_ids))
        return generate(model, tokenizer, prompt_ids, *others)

    return counting


def test_without_a_seed_the_part_keeps_its_own(capsys, monkeypatch, prompts):
    with monkeypatch.context() as patch:
        interrupt_after(patch, 1)
        assert run(capsys, "-f", "prompts.txt", "-o", "out.jsonl", *OPTIONS)[0] == 130
    assert run(capsys, "-f", "prompts.txt", "-o", "out.jsonl", *OPTIONS)[0] == 0
    lines = [json.loads(line) for line in (prompts / "out.jsonl").read_text().splitlines()]
    assert len({line["seed"] for line in lines}) == 1
    again = run(capsys, "-f", "prompts.txt", "--json", "--seed", str(lines[0]["seed"]), *OPTIONS)[1]
    assert [json.loads(line)["ids"] for line in again.splitlines()] == [line["ids"] for line in lines]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (("--seed", "6", *OPTIONS), "seed is 5, not 6"),
        (("--seed", "5", *OPTIONS, "--top-p", "0.8"), "top_p is 0.9, not 0.8"),
        (("--seed", "5", *OPTIONS, "-p", "B"), "prompts_sha256 is"),
        (("--seed", "5", *OPTIONS, "--dtype", "bfloat16"), "dtype is 'float32', not 'bfloat16'"),
    ],
)
def test_a_part_of_another_run_is_left_alone(capsys, monkeypatch, prompts, changed, message):
    with monkeypatch.context() as patch:
        interrupt_after(patch, 1)
        run(capsys, "-f", "prompts.txt", "-o", "out.jsonl", "--seed", "5", *OPTIONS)
    before = (prompts / "out.jsonl.part").read_bytes()
    status, _, err = run(capsys, "-f", "prompts.txt", "-o", "out.jsonl", *changed)
    assert status == 2 and message in err and err.count("\n") == 1
    assert (prompts / "out.jsonl.part").read_bytes() == before


def test_what_is_there_is_not_overwritten(capsys, prompts):
    (prompts / "out.jsonl").write_text("mine\n")
    status, _, err = run(capsys, "-p", "A", "-n", "2", "-o", "out.jsonl")
    assert status == 2
    assert err == (
        "alea generate: --out must be a new file, got out.jsonl, which already exists: --overwrite replaces it\n"
    )
    for text in ("{}\n", '{"settings": 1}\n', '{"prompt_number": 0, "seed": 1}\n', "[" * 9999 + "\n", "mine\n"):
        (prompts / "other.jsonl.part").write_text(text)
        status, _, err = run(capsys, "-p", "A", "-n", "2", "-o", "other.jsonl")
        assert status == 2 and err.count("\n") == 1 and (prompts / "other.jsonl.part").read_text() == text
    status, _, err = run(capsys, "-p", "A", "-n", "2", "-o", "other.jsonl")
    assert status == 2 and "must be written by alea generate, got 'mine'" in err
    status, _, err = run(capsys, "-p", "A", "-n", "2", "-o", "nowhere/out.jsonl")
    assert status == 2 and "nowhere: no such folder" in err
    assert (prompts / "out.jsonl").read_text() == (prompts / "other.jsonl.part").read_text() == "mine\n"


@pytest.mark.parametrize("wrong", [("--top-p", "3"), ("--batch-size", "0"), ("--backend", "abacus")])
def test_a_refused_call_leaves_no_part(capsys, prompts, wrong):
    """It would refuse the right call as that of another run."""
    assert run(capsys, "-f", "prompts.txt", "-o", "out.jsonl", *OPTIONS, *wrong)[0] == 2
    assert [path.name for path in prompts.iterdir()] == ["prompts.txt"]
    assert run(capsys, "-f", "prompts.txt", "-o", "out.jsonl", *OPTIONS)[0] == 0


def test_an_error_keeps_what_was_drawn(capsys, monkeypatch, prompts):
    real, made = batches.generate_batch, []

    def generate(*arguments, **options):
        if made:
            raise RuntimeError("out of memory")
        made.append(None)
        return real(*arguments, **options)

    monkeypatch.setattr(batches, "generate_batch", generate)
    assert run(capsys, "-f", "prompts.txt", "-o", "out.jsonl", *OPTIONS)[0] == 2
    assert len((prompts / "out.jsonl.part").read_text().splitlines()) == 1 + 2 * 2


@pytest.mark.parametrize("beams", [(), ("--beams", "1", "--sample"), ("--beams", "2", "--sample")])
def test_the_stream_in_a_line_draws_its_text_again(capsys, prompts, beams):
    """Oracle: the text drawn alone, by the seed and stream that its line tells."""
    options = ("-n", "4", "--top-p", "0.9", "--seed", "5")
    out = run(capsys, "-p", "A", "-p", "The wolf", "-r", "2", "--json", *options, *beams)[1]
    model, tokenizer = Llama.from_pretrained(), Tokenizer.from_pretrained()
    several = {"num_beams": 2, "num_return_sequences": 2} if "2" in beams else {}
    for place, line in enumerate(map(json.loads, out.splitlines())):
        again = {"stream": [line["stream"]], "seed": line["seed"], "top_p": 0.9, "do_sample": True, **several}
        (row,) = generate(model, tokenizer, line["prompt"], max_new_tokens=4, **again)
        assert row[place % 2 if several else 0].ids == line["ids"]


def test_a_folder_is_no_new_file(capsys, prompts):
    status, _, err = run(capsys, "-p", "A", "-n", "2", "-o", ".", "--overwrite")
    assert (status, err) == (2, "alea generate: --out must be a file, got the folder .\n")


def test_jsonl_prompts(capsys, monkeypatch, prompts):
    (prompts / "in.jsonl").write_text('{"prompt": "A\\nB"}\n\n{"prompt": "C"}\n')
    lines = run(capsys, "-f", "in.jsonl", "-n", "2", "--json")[1].splitlines()
    assert [json.loads(line)["prompt"] for line in lines] == ["A\nB", "C"]
    (prompts / "bad.jsonl").write_text('{"prompt": "A"}\n{"text": "B"}\n')
    status, _, err = run(capsys, "-f", "bad.jsonl", "-n", "2")
    assert status == 2 and "bad.jsonl line 2: prompt is missing" in err
    monkeypatch.setattr("sys.stdin", io.StringIO("A\n"))
    assert run(capsys, "-f", "-", "-n", "2", "--seed", "1")[1].startswith("A")


def test_a_prompt_with_too_few_texts_is_done_again(tmp_path):
    path = tmp_path / "out.jsonl"
    with GenerationFile(path, {"seed": 1}, texts=2) as file:
        file.add(1, [{"text": "b"}, {"text": "c"}])
        file.add(0, [{"text": "x"}])
    with GenerationFile(path, {"seed": 1}, texts=2) as file:
        assert file.done == {1}
    assert len((tmp_path / "out.jsonl.part").read_text().splitlines()) == 1 + 2


def test_a_file_is_replaced_when_the_new_one_is_complete(capsys, monkeypatch, prompts):
    """Until then it stands, and a Ctrl-C and going on change nothing in that."""
    out, command = prompts / "out.jsonl", ("-f", "prompts.txt", "-o", "out.jsonl", "--seed", "5", *OPTIONS)
    run(capsys, *command)
    whole = texts_of(out)
    out.write_text("old")
    with monkeypatch.context() as patch:
        interrupt_after(patch, 1)
        assert run(capsys, *command, "--overwrite")[0] == 130
    assert out.read_text() == "old" and run(capsys, *command)[0] == 2
    status, _, err = run(capsys, *command, "--overwrite")
    assert status == 0 and "going on after 2 of 5 prompts" in err
    assert texts_of(out) == whole and sorted(path.name for path in prompts.iterdir()) == ["out.jsonl", "prompts.txt"]


@pytest.mark.parametrize(
    "other",
    [
        None,
        pytest.param(b"mine\n", marks=pytest.mark.exhaustive),
        pytest.param(b"\xff\n", marks=pytest.mark.exhaustive),
    ],
)
def test_a_part_of_another_run_is_dropped_where_asked_for(capsys, monkeypatch, prompts, other):
    command = ("-f", "prompts.txt", "--seed", "5", *OPTIONS)
    with monkeypatch.context() as patch:
        interrupt_after(patch, 1)
        run(capsys, *command, "--seed", "6", "-o", "out.jsonl")
    if other is not None:
        (prompts / "out.jsonl.part").write_bytes(other)
    status, _, err = run(capsys, *command, "-o", "out.jsonl", "--overwrite")
    assert (status, err) == (0, "wrote out.jsonl: 10 texts of 5 prompts\n")
    run(capsys, *command, "-o", "whole.jsonl")
    assert (prompts / "out.jsonl").read_bytes() == (prompts / "whole.jsonl").read_bytes()


def test_a_file_that_came_to_be_meanwhile_stays_and_so_does_the_part(tmp_path):
    path = tmp_path / "out.jsonl"
    with GenerationFile(path, {"seed": 1}, texts=1) as file:
        file.add(0, [{"text": "b"}])
        path.write_text("theirs")
        with pytest.raises(FileExistsError, match="--overwrite replaces it"):
            file.finish()
    assert path.read_text() == "theirs"
    with GenerationFile(path, {"seed": 1}, texts=1, overwrite=True) as again:
        assert again.done == {0}
        again.finish()
    assert json.loads(path.read_text()) == {"prompt_number": 0, "text": "b"} and list(tmp_path.iterdir()) == [path]


def test_a_second_process_is_refused_by_name(capsys, prompts):
    with GenerationFile(Path("out.jsonl"), {"seed": 1}, texts=1) as file:
        file.add(0, [{"text": "a"}])
        for more in ((), ("--overwrite",)):
            status, _, err = run(capsys, "-p", "A", "-n", "2", "-o", "out.jsonl", *more)
            assert (status, err) == (2, "alea generate: out.jsonl.part: another alea is writing it\n")
        file.add(1, [{"text": "b"}])
        file.finish()
    assert len((prompts / "out.jsonl").read_text().splitlines()) == 2


def test_nothing_is_lost_where_the_part_was_moved_away(tmp_path):
    path, part = tmp_path / "out.jsonl", tmp_path / "out.jsonl.part"
    with GenerationFile(path, {"seed": 1}, texts=1) as file:
        file.add(0, [{"text": "a"}])
        part.rename(tmp_path / "moved")
        file.add(1, [{"text": "b"}])
        file.finish()
    assert [json.loads(line)["text"] for line in path.read_text().splitlines()] == ["a", "b"]


def test_no_text_passes_for_a_header(tmp_path):
    """Whatever its fields: a part that has lost its header is refused."""
    path, part = tmp_path / "out.jsonl", tmp_path / "out.jsonl.part"
    with GenerationFile(path, {"seed": 1}, texts=1) as file:
        file.add(0, [{"settings": {"seed": 1}, "seed": 1}])
    part.write_text(part.read_text().partition("\n")[2])
    with pytest.raises(ValueError, match="must be written by alea generate"):
        GenerationFile(path, {"seed": 1}, texts=1)


def test_into_a_pipe_the_lines_go_as_they_come(capsys, monkeypatch, prompts):
    """Two batches of two prompts, each there before the next is drawn; no other file is made."""
    command, made = ("-f", "prompts.txt", "--seed", "5", *OPTIONS), batches.generate_batch
    read, write = os.pipe()
    os.set_blocking(read, False)
    came = []

    def generate(*arguments, **options):
        came.append(lines_in(read))
        return made(*arguments, **options)

    monkeypatch.setattr(batches, "generate_batch", generate)
    assert run(capsys, *command, "-o", f"/dev/fd/{write}")[2] == f"wrote /dev/fd/{write}: 10 texts of 5 prompts\n"
    assert [*came, lines_in(read)] == [0, 4, 4, 2]
    os.close(read)
    os.close(write)
    assert [path.name for path in prompts.iterdir()] == ["prompts.txt"]


def lines_in(pipe: int) -> int:
    try:
        return os.read(pipe, 1 << 16).count(b"\n")
    except BlockingIOError:
        return 0
