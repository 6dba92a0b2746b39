"""`alea bench load`: seconds and peak memory of loading a checkpoint generated on the spot, beside transformers."""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import model
from bench import measure, runner
from model.config import LlamaConfig

HELP = "seconds and memory of loading a checkpoint, by shape and dtype, and the arithmetic of Llama-2-7B's weights"
BUILT_IN = Path(model.__file__).parent / "storyteller"  # as model.weights.BUILT_IN, which would load torch
SHAPES = {
    "tiny": LlamaConfig(512, 64, 172, 5, 8, 4, 8, 512, 1e-5),
    "storyteller": LlamaConfig.from_pretrained(BUILT_IN),
    "110M": LlamaConfig(32000, 768, 2048, 12, 12, 12, 64, 1024, 1e-5, tie_word_embeddings=True),
    "1B": LlamaConfig(32000, 2048, 5632, 22, 32, 4, 64, 2048, 1e-5),
    "7B": LlamaConfig(32000, 4096, 11008, 32, 32, 32, 128, 4096, 1e-5),  # Llama-2-7B
}
DEPTHS = (8, 20)  # layers of 7B, for the line to all 32 where these are too many for the memory
SHAPES |= {f"7B-{layers}-layers": replace(SHAPES["7B"], num_hidden_layers=layers) for layers in DEPTHS}
WARM_UP = LlamaConfig(64, 32, 64, 1, 2, 2, 16, 64, 1e-5)
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
STORED = ("bfloat16", "float32")


@dataclass(frozen=True)
class Scheme:
    """How weights lie in memory: the dtype, but of the layers' matrices where these are quantised."""

    dtype: str
    quantize: str | None = None
    double_quant: bool = False


SCHEMES = {
    "float32": Scheme("float32"),
    "bfloat16": Scheme("bfloat16"),
    "float16": Scheme("float16"),
    "int8": Scheme("bfloat16", "int8"),
    "fp4": Scheme("bfloat16", "fp4"),
    "nf4": Scheme("bfloat16", "nf4"),
    "nf4-double": Scheme("bfloat16", "nf4", True),
}
MIB = 2**20
SHARD = 1024 * MIB  # bytes of a file, but for a larger tensor
PAGE = 4096  # bytes
OVERHEAD_MIB = 1024  # Python with torch and transformers, and the tensor that is being written or read
CHECKED = 200_000_000  # parameters up to which the logits are compared
PROMPT = [[1, 5, 9, 2, 7, 60, 33, 5]]
TOLERANCE = 1e-4  # of logits of about 1, in float32
INT8_TOLERANCE = 0.05  # of int8, whose product rounds its input too
PRELOAD = ("torch", "transformers.models.auto.modeling_auto", "transformers.models.llama.modeling_llama")
WIDTH = 110  # of a table in a file or pipe, for which rich would take 80
CAPTION = (
    "alea / transformers, medians; each load in a process of its own, with everything imported and a small model "
    "loaded before. The file was just written and is read from the page cache, not from a disk. Load: until "
    "from_pretrained returns. Ready: until every page of the weights has been read as well; transformers leaves "
    "weights in the stored dtype in the mapped file, to be read when they are used. Peak: of resident memory until "
    "ready, above that before the load; pages of a mapped file count while they are mapped, and a few MiB are noise, "
    "as memory freed before is used again. A tied lm_head counts once."
)
TUTORIAL_MIB = {"float32": 25_713, "bfloat16": 12_860, "int8": 6_701, "fp4": 4_000, "nf4-double": 3_695}
ARITHMETIC_CAPTION = (
    "Weights and their scales alone. As bitsandbytes does it, embedding, norms and lm_head stay in 16 bits; int8 adds "
    "a float32 a row, 4 bits one a block of 64 weights, double quantisation a byte instead, a float32 for 256 of "
    "these, and one a matrix. The tutorial's are figures of a GPU in use. The 8.1 MiB that torch lends cuBLAS for its "
    "work (on GPUs other than Hopper's) would explain the differences at 32 and 16 bits, and the last but for 0.4 MiB; "
    "of int8's 11 MiB and of 4 bits' 17 MiB would remain unexplained."
)

Record = dict[str, Any]
Load = Callable[[Path, Scheme], Any]  # -> a model


@dataclass(frozen=True)
class Case:
    """A checkpoint of a shape, and the name of the scheme that it is loaded in."""

    shape: str
    dtype: str

    def __str__(self) -> str:
        return f"{self.shape}, {self.dtype}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    shapes, dtypes = ["tiny", "storyteller", "110M"], ["float32", "bfloat16"]
    some = "some of {}; default {}"
    parser.add_argument(
        "--shapes", nargs="+", default=shapes, metavar="NAME", help=some.format(", ".join(SHAPES), " ".join(shapes))
    )
    parser.add_argument(
        "--dtypes", nargs="+", default=dtypes, metavar="NAME", help=some.format(", ".join(SCHEMES), " ".join(dtypes))
    )
    parser.add_argument("--loaders", nargs="+", default=list(LOADERS), metavar="NAME", help="default both of them")
    stored = f"dtype of the generated files, {' or '.join(STORED)}; default {STORED[0]}"
    parser.add_argument("--stored", default=STORED[0], metavar="NAME", help=stored)
    parser.add_argument("--arithmetic", action="store_true", help="only what Llama-2-7B's weights need, by arithmetic")
    runner.add_options(parser, "load", "two rounds of tiny and storyteller", rounds=3)


def run(arguments: argparse.Namespace) -> int:
    if arguments.quick:
        arguments.rounds, arguments.shapes = 2, ["tiny", "storyteller"]
    check_options(arguments)
    if not arguments.arithmetic:
        show(measured(arguments))
    show_arithmetic()
    return 0


def check_options(arguments: argparse.Namespace) -> None:
    """Raises: ValueError naming the option."""
    for name in ("rounds", "threads"):
        if getattr(arguments, name) < 1:
            raise ValueError(f"--{name} must be >= 1, got {getattr(arguments, name)}")
    for option, values, known in (
        ("shapes", arguments.shapes, SHAPES),
        ("dtypes", arguments.dtypes, SCHEMES),
        ("loaders", arguments.loaders, LOADERS),
        ("stored", [arguments.stored], STORED),
    ):
        for value in values:
            if value not in known:
                raise ValueError(f"--{option} must be of {', '.join(known)}, got {value!r}")


def measured(arguments: argparse.Namespace) -> list[Record]:
    """One record a case; the generated files are gone afterwards, whatever happened."""
    cases = [Case(shape, dtype) for shape in arguments.shapes for dtype in arguments.dtypes]
    check_room(cases, arguments.stored)
    import torch

    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory(prefix="alea-load-") as home:
        checkpoints = Checkpoints(Path(home), arguments.stored)
        record = partial(
            measure_case,
            checkpoints=checkpoints,
            names=[name for name in LOADERS if name in arguments.loaders],
            rounds=arguments.rounds,
            threads=arguments.threads,
        )
        return runner.collect("load", cases, record, arguments.save, tell)


def check_room(cases: Iterable[Case], stored: str) -> None:
    """A shape that disk or memory can't hold is refused before anything is generated."""
    folder = Path(tempfile.gettempdir())
    disk, memory = shutil.disk_usage(folder).free / MIB, available_mib()
    for case in cases:
        parameters = count(SHAPES[case.shape])
        file = parameters * BYTES[stored] / MIB
        if case.shape != "storyteller" and file > disk:
            raise ValueError(
                f"--shapes {case.shape} needs {file:,.0f} MiB of disk as {stored}; {disk:,.0f} MiB are free "
                f"in {folder} (TMPDIR names another folder)"
            )
        # Without the file: pages of it that find no room are read from the disk again.
        needed = weights_mib(SHAPES[case.shape], case.dtype) + OVERHEAD_MIB
        if needed > memory:
            raise ValueError(
                f"--shapes {case.shape} needs {needed:,.0f} MiB of memory in {case.dtype}; "
                f"{memory:,.0f} MiB are available"
            )


def available_mib() -> float:
    """Memory that can be had without swapping: Linux' own estimate, elsewhere the free pages."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")) / 1024
    with suppress(ValueError, OSError):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / MIB
    return math.inf


def tensors(config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes in a Hugging Face checkpoint, written down apart from any loader, which they judge."""
    hidden, inner = config.hidden_size, config.intermediate_size
    queries, shared = (heads * config.head_dim for heads in (config.num_attention_heads, config.num_key_value_heads))
    block: dict[str, tuple[int, ...]] = {
        "self_attn.q_proj": (queries, hidden),
        "self_attn.k_proj": (shared, hidden),
        "self_attn.v_proj": (shared, hidden),
        "self_attn.o_proj": (hidden, queries),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
    }
    embedding: tuple[int, ...] = (config.vocab_size, hidden)
    found = {"model.embed_tokens.weight": embedding}
    for layer in range(config.num_hidden_layers):
        found |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in block.items()}
    found["model.norm.weight"] = (hidden,)
    return found if config.tie_word_embeddings else found | {"lm_head.weight": embedding}


def count(config: LlamaConfig) -> int:
    """Parameters, a tied lm_head once.

    >>> f"{count(SHAPES['7B']):,}"
    '6,738,415,616'
    """
    return sum(map(math.prod, tensors(config).values()))


class Checkpoints:
    """Folders of weights, generated when first asked for; one at a time, beside the small one to warm up with."""

    def __init__(self, home: Path, stored: str) -> None:
        self.home, self.stored = home, stored
        self.warm_up = generate(home / "warm-up", WARM_UP, stored)

    def folder(self, shape: str) -> Path:
        folder = self.home / shape
        if shape == "storyteller":
            return BUILT_IN
        if not folder.is_dir():
            for other in set(self.home.iterdir()) - {self.warm_up}:
                shutil.rmtree(other)
            generate(folder, SHAPES[shape], self.stored)
        return folder


def generate(folder: Path, config: LlamaConfig, stored: str, shard_bytes: int = SHARD) -> Path:
    """A checkpoint as transformers would save it, written shard by shard, so that memory never holds more than one."""
    from safetensors.torch import save_file

    from model.weights import INDEX, SINGLE

    folder.mkdir()
    write_config(folder, config, stored)
    shapes, homes = tensors(config), {}
    groups = list(shards(shapes, shard_bytes // BYTES[stored]))
    for number, names in enumerate(groups, 1):
        path = folder / (SINGLE if len(groups) == 1 else f"model-{number:05}-of-{len(groups):05}.safetensors")
        save_file({name: weights(name, shapes[name], stored) for name in names}, path, metadata={"format": "pt"})
        with path.open("rb") as file:
            os.fsync(file.fileno())  # so that no write to the disk goes on while loading is timed
        homes.update(dict.fromkeys(names, path.name))
    if len(groups) > 1:
        index = {"metadata": {"total_size": count(config) * BYTES[stored]}, "weight_map": homes}
        (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")
    return folder


def write_config(folder: Path, config: LlamaConfig, stored: str) -> None:
    own = {name: value for name, value in asdict(config).items() if name not in ("rope_scaling", "eos_token_ids")}
    what = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "torch_dtype": stored}
    (folder / "config.json").write_text(json.dumps(what | own, indent=2), encoding="utf-8")


def shards(shapes: dict[str, tuple[int, ...]], most: int) -> Iterator[list[str]]:
    """The names in groups of at most so many parameters; a larger tensor is a group of its own.

    >>> list(shards({"a": (2, 2), "b": (3,), "c": (9,)}, 8))
    [['a', 'b'], ['c']]
    """
    names: list[str] = []
    for name in shapes:
        if names and sum(math.prod(shapes[n]) for n in [*names, name]) > most:
            yield names
            names = []
        names.append(name)
    yield names


def weights(name: str, shape: tuple[int, ...], stored: str) -> Any:
    """Random numbers, other ones for each name, that a forward pass neither blows up nor lets vanish."""
    import torch

    size = math.prod(shape)
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    some = torch.randn(min(size, MIB - 1), generator=generator)  # and those over again: fast, rows still differ
    scaled = 1 + some / 10 if len(shape) == 1 else some * shape[-1] ** -0.5
    return scaled.to(getattr(torch, stored)).repeat(-(-size // len(some)))[:size].view(shape)


def ours(folder: Path, scheme: Scheme) -> Any:
    import torch

    from model import Llama

    dtype = getattr(torch, scheme.dtype)
    return Llama.from_pretrained(folder, dtype, quantize=scheme.quantize, double_quant=scheme.double_quant)


def theirs(folder: Path, scheme: Scheme) -> Any:
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig
    from transformers.utils import logging

    from model import quantization

    logging.disable_progress_bar()
    more: Record = {}
    if scheme.quantize is not None:
        quantization.library()  # for its silence
    if scheme.quantize == "int8":
        more["quantization_config"] = BitsAndBytesConfig(load_in_8bit=True)
    elif scheme.quantize is not None:
        more["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=scheme.quantize,
            bnb_4bit_use_double_quant=scheme.double_quant,
            bnb_4bit_compute_dtype=scheme.dtype,
        )
    return AutoModelForCausalLM.from_pretrained(folder, dtype=scheme.dtype, local_files_only=True, **more)


LOADERS: dict[str, Load] = {"alea": ours, "transformers": theirs}


def skipped(names: Iterable[str], dtype: str) -> dict[str, str]:
    """Loaders that can't be measured, and why."""
    without = {name: "not asked for" for name in LOADERS if name not in names}
    without |= {name: "not installed" for name in names if name != "alea" and measure.installed(name) is None}
    if SCHEMES[dtype].quantize is not None and measure.installed("accelerate") is None:
        without["transformers"] = "accelerate is not installed"
    return without


def measure_case(case: Case, checkpoints: Checkpoints, names: Iterable[str], rounds: int, threads: int) -> Record:
    """Right first, then each loader once a round, in turn, so that drift of the machine hits both alike."""
    from model.weights import stored_dtype, tensor_homes

    folder, without = checkpoints.folder(case.shape), skipped(names, case.dtype)
    names = [name for name in LOADERS if name not in without]
    if count(SHAPES[case.shape]) <= CHECKED and len(names) > 1:
        in_fresh_process(check_logits, folder, case.dtype)
    loads: dict[str, list[Record]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names if number % 2 == 0 else names[::-1]:
            load = in_fresh_process(timed, name, folder, case.dtype, checkpoints.warm_up, threads)
            check_size(case, name, load)
            loads[name].append(load)
    return {
        "benchmark": "load",
        "shape": case.shape,
        "parameters": count(SHAPES[case.shape]),
        "stored": str(stored_dtype(tensor_homes(folder))).removeprefix("torch."),
        "dtype": case.dtype,
        "rounds": rounds,
        **{
            figure: {
                name: quantiles([load[figure] for load in some]) for name, some in loads.items() if figure in some[0]
            }
            for figure in ("seconds", "ready_seconds", "peak_mib", "resident_mib", "token_cpu_seconds", "running_mib")
        },
        "weights_mib": weights_mib(SHAPES[case.shape], case.dtype),
        "skipped": without,
        **measure.circumstances(),
    }


def quantiles(values: list[float]) -> dict[str, float]:
    """As measure.quantiles; one value is all three of them."""
    return measure.quantiles(values * 2 if len(values) == 1 else values)


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """What function returns in a process made for it alone, forked where the libraries are imported already.

    Raises: RuntimeError with the message of what went wrong there.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOAD))  # one that is not installed is passed over
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=answer, args=(sender, function, *arguments), daemon=True)
    with receiver:
        try:
            with interrupts_after():
                process.start()
            sender.close()
            result, error = receiver.recv()
        except EOFError:
            process.join()
            raise RuntimeError(f"the process that loads ended with {ending(process.exitcode)}") from None
        finally:
            if process.pid is not None:
                process.kill()
                process.join()
    if error is not None:
        raise RuntimeError(error)
    return result


@contextmanager
def interrupts_after() -> Iterator[None]:
    """Puts a Ctrl-C off until a process is started and can be ended; the server itself, which imports, ignores it."""
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # is inherited
    try:
        forkserver.ensure_running()
        signal.signal(signal.SIGINT, lambda number, frame: pressed.append(number))
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt


def answer(sender: Any, function: Callable[..., Any], *arguments: Any) -> None:
    """The child's side: the result, or the error in words; a Ctrl-C is the parent's, which ends this process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        sender.send((function(*arguments), None))
    except Exception as error:
        sender.send((None, f"{type(error).__name__}: {error}"))


def ending(code: int | None) -> str:
    """How a process ended that could not say so itself.

    >>> ending(3), ending(-9)
    ('exit code 3', 'signal 9, as when memory runs out')
    """
    if code is None or code >= 0:
        return f"exit code {code}"
    return f"signal {-code}, as when memory runs out" if code == -signal.SIGKILL else f"signal {-code}"


def timed(name: str, folder: Path, dtype: str, warm_up: Path, threads: int) -> Record:
    """In a fresh process: seconds, memory and size of a load, after one of a small model for what is paid once."""
    import torch

    torch.set_num_threads(threads)
    scheme = SCHEMES[dtype]
    read_pages(LOADERS[name](warm_up, scheme))
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak starts anew from here
    before = resident_mib("VmRSS")
    began = time.perf_counter()
    llama = LOADERS[name](folder, scheme)
    loaded = time.perf_counter()
    read_pages(llama)
    ready = time.perf_counter()
    found = {
        "seconds": loaded - began,
        "ready_seconds": ready - began,
        "peak_mib": resident_mib("VmHWM") - before,
        "resident_mib": resident_mib("VmRSS") - before,
        "parameters": sum(whole_size(p) for p in llama.parameters()),
        "weights_mib": sum(t.numel() * t.element_size() for t in held(llama)) / MIB,
    }
    return found | (running(llama, before) if name == "alea" else {})


def running(llama: Any, before: float) -> Record:
    """CPU seconds of a pass of one token, least of three after one that packs what is quantised; and memory then."""
    import torch

    seconds = []
    with torch.inference_mode():
        for _ in range(4):
            began = time.process_time()  # of this process: others that run beside it do not count
            llama(torch.tensor([[1]]))
            seconds.append(time.process_time() - began)
    return {"token_cpu_seconds": min(seconds[1:]), "running_mib": resident_mib("VmRSS") - before}


def held(llama: Any) -> Iterator[Any]:
    """Every tensor of the weights, those of bitsandbytes' scales as well."""
    for parameter in llama.parameters():
        yield parameter.detach()
        state = getattr(parameter, "quant_state", None)
        if state is not None:
            yield from [state.absmax, *([state.offset, state.state2.absmax] if state.nested else [])]
        elif getattr(parameter, "SCB", None) is not None:
            yield parameter.SCB


def whole_size(parameter: Any) -> int:
    """Its weights, of which 4 bits pack two in a byte."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else state.shape.numel()


def read_pages(llama: Any) -> None:
    """A byte of every page of the weights, so that none is left in a file."""
    import torch

    for value in held(llama):
        flat = (value if value.is_contiguous() else value.t()).reshape(-1)  # a view: t() undoes storage by columns
        flat.view(torch.uint8)[::PAGE].sum()


def resident_mib(field: str) -> float:
    """VmRSS (now) or VmHWM (peak) of this process; without Linux' /proc the peak for both."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (MIB if sys.platform == "darwin" else 1024)


def check_logits(folder: Path, dtype: str) -> None:
    """Nothing is timed that is not right: the loaded weights must give the same logits in float32."""
    import torch

    found, scheme = {}, SCHEMES[dtype]
    for name, load in LOADERS.items():
        if scheme.quantize is None:
            llama = load(folder, scheme).float()
        else:
            llama = load(folder, replace(scheme, dtype="float32"))
            for module in llama.modules():  # whose kernel for some CPUs rounds to bfloat16, and takes not all shapes
                module.support_avx512bf16_for_cpu = False
        with torch.inference_mode():
            output = llama(torch.tensor(PROMPT))
        found[name] = getattr(output, "logits", output)
    expected = found["alea"]
    tolerance = INT8_TOLERANCE if scheme.quantize == "int8" else TOLERANCE
    for name, logits in found.items():
        if not torch.allclose(logits, expected, rtol=tolerance, atol=tolerance):
            most = (logits - expected).abs().max().item()
            raise RuntimeError(f"{name} and alea differ in logits by up to {most:.3g}; nothing was measured")


def check_size(case: Case, name: str, load: Record) -> None:
    """Nothing is recorded of a model that is not the one that was asked for."""
    parameters, size = count(SHAPES[case.shape]), weights_mib(SHAPES[case.shape], case.dtype)
    if (load["parameters"], load["weights_mib"]) != (parameters, size):
        raise RuntimeError(
            f"{name} must load {parameters:,} parameters, {size:,.1f} MiB ({case}), "
            f"got {load['parameters']:,}, {load['weights_mib']:,.1f} MiB"
        )


def rows(records: Iterable[Record]) -> tuple[list[str], list[list[str]]]:
    """Headings and cells, the figures of all loaders in one cell."""
    headings = ["shape", "parameters", "stored", "loaded as", "weights, MiB", "load, s", "ready, s", "peak, MiB"]
    return headings, [
        [
            record["shape"],
            f"{record['parameters']:,}",
            record["stored"],
            record["dtype"],
            f"{record['weights_mib']:,.1f}",
            *(medians(record[figure]) for figure in ("seconds", "ready_seconds", "peak_mib")),
        ]
        for record in records
    ]


def tutorial_rows(records: Iterable[Record]) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of Llama-2-7B's weights in memory, measured, beside the arithmetic and the tutorial."""
    headings = ["weights", "arithmetic, MiB", "resident, MiB", "tutorial, MiB", "difference"]
    headings += ["peak, MiB", "after a pass, MiB", "load, s"]
    own = {record["dtype"]: record for record in records if record["shape"] == "7B"}
    rows = []
    for scheme, tutorial in TUTORIAL_MIB.items():
        resident = resident_7b(records, scheme)
        cells = [f"{weights_mib(SHAPES['7B'], scheme):,.0f}", f"{resident:,.0f}", f"{tutorial:,}"]
        figures = ("peak_mib", "running_mib", "seconds")
        more = [medians({"alea": own[scheme][figure]["alea"]}) if scheme in own else "–" for figure in figures]
        rows.append([scheme, *cells, f"{resident / tutorial - 1:+.2%}", *(cell.split(" / ")[0] for cell in more)])
    return headings, rows


def resident_7b(records: Iterable[Record], scheme: str) -> float:
    """MiB in memory after Llama-2-7B's shape was loaded by alea; by the line through two depths where it was not."""
    deep = [record for record in records if record["shape"].startswith("7B") and record["dtype"] == scheme]
    found = {record["shape"]: record["resident_mib"]["alea"]["p50"] for record in deep}
    if "7B" in found:
        return found["7B"]
    low, high = (found[f"7B-{layers}-layers"] for layers in DEPTHS)
    a_layer = (high - low) / (DEPTHS[1] - DEPTHS[0])
    return low + (SHAPES["7B"].num_hidden_layers - DEPTHS[0]) * a_layer


def medians(figures: dict[str, dict[str, float]]) -> str:
    """One cell for all loaders.

    >>> medians({"alea": {"p50": 0.01234}, "transformers": {"p50": 1234.5}})
    '0.0123 / 1,234'
    """
    cells = [figures[name]["p50"] if name in figures else None for name in LOADERS]
    return " / ".join("–" if cell is None else f"{cell:,.0f}" if cell >= 100 else f"{cell:.3g}" for cell in cells)


def tell(record: Record) -> None:
    """A line as soon as a case is measured; the table comes at the end."""
    figures = (f"{name} {figure['p50']:.3g} s" for name, figure in record["seconds"].items())
    without = (f"{name} skipped ({why})" for name, why in record["skipped"].items())
    print(f"{record['shape']}, {record['dtype']}: {', '.join([*figures, *without])}")


def show(records: list[Record]) -> None:
    if records:
        print_table("load, alea / transformers", *rows(records), left=1, caption=CAPTION)


def weights_mib(config: LlamaConfig, scheme: str) -> float:
    """MiB of the weights and their scales as they would lie in memory.

    >>> round(weights_mib(SHAPES["7B"], "float32")), round(weights_mib(SHAPES["7B"], "int8"))
    (25705, 6682)
    """
    if scheme not in SCHEMES:
        raise ValueError(f"scheme must be one of {', '.join(SCHEMES)}, got {scheme!r}")
    shapes = tensors(config)
    quantized = {name: shape for name, shape in shapes.items() if "_proj" in name and SCHEMES[scheme].quantize}
    rest = sum(math.prod(shape) for name, shape in shapes.items() if name not in quantized)
    inside = sum(quantized_bytes(shape, SCHEMES[scheme]) for shape in quantized.values())
    return (inside + rest * BYTES[SCHEMES[scheme].dtype]) / MIB


def quantized_bytes(shape: tuple[int, ...], scheme: Scheme) -> int:
    """Of a matrix with its scales.

    >>> quantized_bytes((4096, 4096), SCHEMES["nf4"])
    9437184
    """
    weights = math.prod(shape)
    if scheme.quantize == "int8":
        return weights + 4 * shape[0]  # a float32 a row
    blocks = -(-weights // 64)
    scales = blocks + 4 * -(-blocks // 256) + 4 if scheme.double_quant else 4 * blocks
    return -(-weights // 2) + scales


def show_arithmetic() -> None:
    cells = []
    for scheme, tutorial in TUTORIAL_MIB.items():
        mib = weights_mib(SHAPES["7B"], scheme)
        cells.append([scheme, f"{mib:,.1f}", f"{tutorial:,}", f"{mib - tutorial:+.1f} ({mib / tutorial - 1:+.2%})"])
    headings = ["weights", "arithmetic", "tutorial", "difference"]
    print_table("Llama-2-7B's weights, MiB", headings, cells, left=1, caption=ARITHMETIC_CAPTION)


def print_table(title: str, headings: list[str], cells: list[list[str]], left: int, caption: str) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column, heading in enumerate(headings):
        table.add_column(heading, justify="left" if column < left else "right")
    for row in cells:
        table.add_row(*row)
    console = Console(width=None if Console().is_terminal else WIDTH)
    console.print(table)
    console.print(caption, highlight=False)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.load", description=HELP)
    add_arguments(parser)
    try:
        return run(parser.parse_args())
    except (ValueError, OSError, RuntimeError) as error:
        print(f"bench.load: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
