"""The command `alea`, as its user meets it: text on stdout, talk on stderr, exit statuses."""

import io
import json
import os
import subprocess
import sys

import pytest

from model import Llama, Tokenizer, generate
from model.cli import main
from model.commands import terminal
from model.commands.arguments import model_name
from model.commands.parser import parser
from model.decoding import batches
from model.loading.weights import BUILT_IN

IMPORTS_FIRST = """
import sys
before = set(sys.modules)
import model.cli
print(*set(sys.modules) - before)
"""
INTERRUPTED = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell ignores it

class Finder:
    def find_spec(self, name, *_):
        if name == TARGET:
            sys.meta_path.remove(self)
            signal.raise_signal(signal.SIGINT)

TARGET, sys.argv = sys.argv[1], ["alea", "generate", "-p", "The", "-n", "3"]
sys.meta_path.insert(0, Finder())
from model.cli import main
sys.exit(main())
"""
INTERRUPTED_AT_ITS_END = """
import atexit, signal, sys
from model.cli import main
atexit.register(signal.raise_signal, signal.SIGINT)
sys.argv = ["alea", "--version"]
sys.exit(main())
"""
HELP = """
import sys
from model.cli import main
try:
    main(["--help"])
finally:
    assert not {"torch", "numpy", "sentencepiece", "rich"} & set(sys.modules)
    assert {name for name in sys.modules if name.startswith("bench.")} <= {"bench.cli"}
"""


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    status = main(arguments)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_help_loads_nothing_heavy():
    output = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, check=True).stdout
    for command in ("generate", "info", "bench"):
        assert command in output


@pytest.mark.exhaustive
def test_a_story_does_not_wait_for_torchs_compiler():
    """Its import takes longer than all the rest of a start."""
    story = 'main(["generate", "-p", "A", "-n", "2"])\nassert "torch._dynamo" not in sys.modules'
    subprocess.run([sys.executable, "-c", f"import sys\nfrom model.cli import main\n{story}"], check=True)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ([], "the built-in storyteller"),
        (["tales/", "--quantize", "int8"], "tales, int8"),
        (["--adapter", "a/dragons", "--quantize", "nf4", "--double-quant"], "nf4 with double quantization"),
    ],
)
def test_the_name_of_a_model_tells_what_was_changed(options, name):
    """Pages and the chat say it."""
    shown = model_name(parser().parse_args(["trace", "-p", "A", *options]))
    assert shown.endswith(name) and ("adapter dragons" in shown) == ("--adapter" in options)


def test_generate_is_repeatable(capsys):
    a, b, c = (run(capsys, "generate", "-p", "Once upon a time", "-n", "20", "--seed", seed) for seed in "778")
    assert a == b and a[0] == 0
    assert a[1].startswith("Once upon a time") and a[1].endswith("\n") and a[1] != c[1]
    assert a[2] == ""  # quiet: stderr is no terminal


def test_what_is_streamed_is_what_is_printed(capsys):
    arguments = ("generate", "-p", "The king", "-n", "30", "--seed", "3", "--stop", "the")
    assert run(capsys, *arguments) == run(capsys, *arguments, "--no-stream")


def test_zero_temperature_is_greedy(capsys):
    _, out, _ = run(capsys, "generate", "-p", "The king", "-n", "20", "--temperature", "0")
    greedy = generate(
        Llama.from_pretrained(), Tokenizer.from_pretrained(), "The king", max_new_tokens=20, do_sample=False
    )
    assert out == "The king" + greedy[0][0].text + "\n"


def test_json(capsys):
    _, out, _ = run(
        capsys, "generate", "-p", "A", "-p", "B", "-r", "2", "-n", "5", "--seed", "4", "--json", "--top-k", "9"
    )
    lines = [json.loads(line) for line in out.splitlines()]
    assert [(line["prompt"], line["stream"], line["seed"]) for line in lines] == [
        ("A", 0, 4),
        ("A", 1, 4),
        ("B", 2, 4),
        ("B", 3, 4),
    ]
    for line in lines:
        assert len(line["ids"]) == len(line["logprobs"]) == len(line["model_logprobs"]) <= 5
        assert line["finish_reason"] in ("eos", "length")


def test_prompts_from_standard_input_and_from_a_file(capsys, monkeypatch, tmp_path):
    arguments = ("generate", "-n", "8", "--seed", "5")
    monkeypatch.setattr("sys.stdin", io.StringIO("The king\n\nThe queen\n"))
    piped = run(capsys, *arguments)[1]
    path = tmp_path / "prompts.txt"
    path.write_text("The king\nThe queen\n")
    assert run(capsys, *arguments, "-f", str(path))[1] == piped
    assert piped.startswith("[1/2] The king") and "[2/2] The queen" in piped


def test_a_folder_of_ones_own(capsys, llama_folder, llama2_tokenizer):
    folder = llama_folder(vocab_size=32000)
    (folder / "tokenizer.model").write_bytes(llama2_tokenizer.read_bytes())
    status, out, _ = run(capsys, "generate", str(folder), "-p", "Tell me a story", "-n", "10", "--seed", "1")
    assert status == 0 and out.startswith("Tell me a story")
    assert run(capsys, "generate", "-m", str(folder), "-p", "Tell me a story", "-n", "10", "--seed", "1")[1] == out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-p", "A", "--top-p", "1.5"), "alea generate: top_p must be in [0, 1], got 1.5"),
        (("nowhere", "-p", "A"), "alea generate: nowhere: no such folder"),
        (("-p", "A", "-n", "9999"), "alea generate: prompts[0]: 2 prompt tokens + 9999 new = 10001 > 512"),
        (("-p", "A", "--backend", "gpu"), "alea generate: backend must be 'auto' or one of"),
        (("-f", "missing.txt"), "missing.txt"),
        (("-p", "A", "-n", "0"), "alea generate: max_new_tokens must be an integer >= 1, got 0"),
        (("a", "-m", "b", "-p", "A"), "alea generate: MODEL must be given once, got 'a' and --model 'b'"),
        (("", "-p", "A"), "alea generate: MODEL must be a folder, got ''"),
        (("-p", "king " * 600), "leaves"),
        (("-p", "A", "--batch-size", "0"), "alea generate: --batch-size must be an integer >= 1, got 0"),
        (("-p", "A", "--batch-size", "-1"), "--batch-size must be an integer >= 1, got -1"),
        (("-p", "A", "-n", "3", "--max-length", "9"), "--max-new-tokens and --max-length both limit the length"),
        (("-p", "A", "--stream", "--json"), "--stream shows a single text as it grows: not several, nor with"),
        (("-p", "A", "--stream", "--beams", "2"), "--stream shows a single text"),
        (("-p", "A", "--stream", "-o", "out.jsonl"), "--stream shows a single text"),
        (("-p", "A", "--stream", "-p", "B"), "--stream shows a single text"),
        (("-p", "A", "--stop", "\udce4"), "--stop must be valid UTF-8, got '\\udce4'"),
        (("-p", "A", "--beams", "2", "--seed", "1"), "--seed needs --sample if --beams is given"),
    ],
)
def test_bad_input_is_one_line_and_status_2(capsys, arguments, message):
    status, out, err = run(capsys, "generate", *arguments)
    assert status == 2 and message in err and err.count("\n") == 1
    assert out == ""


def test_many_texts_say_what_lies_ahead_and_are_shown_as_they_come(capsys, monkeypatch):
    """Where stderr is no terminal; the first batch is on stdout before the last is drawn."""
    monkeypatch.setattr(terminal, "MANY", 4)
    monkeypatch.setattr(batches, "AT_ONCE", 2)
    command = ("generate", "-p", "A", "-r", "5", "-n", "2", "--json")
    assert run(capsys, *command)[2] == "5 texts: this may take a while\n"
    real, shown_by = batches.generate_batch, []

    def generate(*arguments, **options):
        shown_by.append(capsys.readouterr().out.count("\n"))
        return real(*arguments, **options)

    monkeypatch.setattr(batches, "generate_batch", generate)
    assert main(command) == 0
    assert shown_by == [0, 2, 2]


def test_many_prompts_are_drawn_in_batches_with_streams_of_their_own(capsys):
    several = ("--batch-size", "2", "-p", "A", "-p", "B", "-p", "C", "-n", "6", "--seed", "4", "--json")
    lines = [json.loads(line) for line in run(capsys, "generate", *several)[1].splitlines()]
    together = generate(
        Llama.from_pretrained(),
        Tokenizer.from_pretrained(),
        ["A", "B", "C"],
        max_new_tokens=6,
        seed=4,
        do_sample=True,
    )
    assert [line["ids"] for line in lines] == [row[0].ids for row in together]


@pytest.mark.parametrize("output", [(), ("--json",), ("--out", "texts.jsonl")])
def test_a_tokenizer_with_more_pieces_than_the_model_is_named(capsys, monkeypatch, tmp_path, llama_folder, output):
    monkeypatch.chdir(tmp_path)
    folder = llama_folder()
    (folder / "tokenizer.model").write_bytes((BUILT_IN / "tokenizer.model").read_bytes())
    status, _, error = run(capsys, "generate", str(folder), "-p", "Tell me a story", "-n", "4", *output)
    assert status == 2 and not list(tmp_path.glob("texts*"))
    assert "prompts[0] must hold token ids in 0 .. 96, got" in error and "(the tokenizer has 4096 pieces)" in error


def test_a_folder_that_says_greedy_is_greedy(capsys, llama_folder):
    folder = llama_folder(vocab_size=4096)
    (folder / "tokenizer.model").write_bytes((BUILT_IN / "tokenizer.model").read_bytes())
    (folder / "generation_config.json").write_text('{"do_sample": false}')
    one, two = (run(capsys, "generate", str(folder), "-p", "A", "-n", "8", "--seed", s)[1] for s in "12")
    three = run(capsys, "generate", str(folder), "-p", "A", "-n", "8", "--seed", "2", "--top-k", "0")[1]
    assert one == two != three


def shell(command: str) -> subprocess.CompletedProcess[str]:
    """With Python's buffers as a user has them."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    words = ["bash", "-c", command.replace("alea", f"{sys.executable} -m model.cli")]
    return subprocess.run(words, capture_output=True, text=True, env=environment)


@pytest.mark.parametrize(
    "command",
    [
        "generate -p The -n 30 --seed 1 | head -c 5",
        pytest.param("info | true", marks=pytest.mark.exhaustive),
        pytest.param("trace -p A -n 1 | true", marks=pytest.mark.exhaustive),
    ],
)
def test_a_closed_pipe_is_no_error(command):
    done = shell(f"alea {command}; echo ${{PIPESTATUS[0]}}")
    assert done.stdout.endswith("0\n") and done.stderr == ""


@pytest.mark.parametrize(
    "command",
    ["--help", *(pytest.param(command, marks=pytest.mark.exhaustive) for command in ("info", "trace -p A -n 1"))],
)
def test_a_full_disk_names_stdout(command):
    done = shell(f"alea {command} > /dev/full")
    name = "alea" if command == "--help" else f"alea {command.split()[0]}"
    assert (done.returncode, done.stderr) == (2, f"{name}: can't write to stdout: No space left on device\n")


@pytest.mark.exhaustive
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_outputs_are_no_error(closed):
    done = shell(f"alea generate -p The -n 3 --seed 1 {closed}")
    assert done.returncode == 0 and done.stderr == ""


def test_control_c(capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("model.decoding.sampling.decode", interrupted)
    assert run(capsys, "generate", "-p", "A") == (130, "", "\n")


def test_nothing_is_imported_before_a_control_c_is_taken():
    """But what costs nothing: what Python has in itself, and this project's own."""
    done = subprocess.run([sys.executable, "-c", IMPORTS_FIRST], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= {"model", "model.cli", "model.interrupt", "errno", "__future__"}


@pytest.mark.parametrize("imported", ["argparse", "model.commands.generate", "numpy", "numpy.dtypes"])
def test_control_c_amid_an_import(imported):
    """NumPy and torch swallow what is raised there, and go on half imported."""
    done = subprocess.run([sys.executable, "-c", INTERRUPTED, imported], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "\n")


def test_control_c_at_the_end_of_the_process():
    done = subprocess.run([sys.executable, "-c", INTERRUPTED_AT_ITS_END], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("alea ")


IMPORTS = [
    "from model import Generation, generate",
    "from model import *",
    "import model.decoding.generation; from model import generate",
]


@pytest.mark.exhaustive
@pytest.mark.parametrize("statement", IMPORTS)
def test_generate_is_a_function_whatever_came_first(statement):
    subprocess.run([sys.executable, "-c", f"{statement}\nassert callable(generate)"], check=True)


def test_no_prompt(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    status, _, err = run(capsys, "generate")
    assert status == 2 and "a prompt is needed: -p TEXT, -f FILE" in err


def test_info(capsys):
    _, out, _ = run(capsys, "info")
    for word in ("torch", "cpu", "reference", "native", "triton"):
        assert word in out
    assert json.loads(run(capsys, "info", "--json")[1])["backends"]["reference"] == "ok"
