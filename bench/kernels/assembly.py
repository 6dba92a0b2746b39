"""The cost of a compiled kernel, and whether its float32 is exact: read from the output of the compilers."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

STREAMING = ("write_maxima", "write_masses")  # the functions of `samplers/kernels/` whose loops pass over a row
SELDOM = "count_finite"  # the function of `one_read.py` that only rows with -inf need


def ptxas_figures(log: str) -> dict[str, int]:
    """Registers of a thread, and bytes that it keeps in memory for want of more; from the log of `ptxas -v`.

    >>> ptxas_figures("8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads; Used 96 registers")
    {'registers': 96, 'spill_stores': 4, 'spill_loads': 12}
    """
    used = [int(n) for n in re.findall(r"Used (\d+) registers", log)]
    spills = re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", log)  # one line a function
    if not used or not spills:
        raise ValueError(f"log must be that of ptxas -v, got {log!r}")
    stores, loads = (sum(map(int, column)) for column in zip(*spills, strict=True))
    return {"registers": max(used), "spill_stores": stores, "spill_loads": loads}


def amd_figures(amdgcn: str) -> dict[str, int]:
    """The same from the metadata of AMD's assembly, which counts the vector registers that are spilled."""
    registers, spilled = (
        int(re.findall(rf"\.{name}:\s+(\d+)", amdgcn)[-1]) for name in ("vgpr_count", "vgpr_spill_count")
    )
    return {"registers": registers, "spill_stores": 4 * spilled, "spill_loads": 4 * spilled}  # 4 bytes a thread


def float32_in_ptx(ptx: str) -> dict[str, int]:
    """How many float32 operations are not a single one rounded once to nearest.

    fused: multiply-adds, which the definition has only in its weights. contractible: operations that
    ptxas may fuse. approximate: ex2, lg2, rcp, a division not rounded. flushing: subnormals become 0.

    >>> float32_in_ptx("fma.rn.f32 %f1, %f2, %f3, %f4;")
    {'fused': 1, 'contractible': 0, 'approximate': 0, 'flushing': 0}
    >>> float32_in_ptx("@%p1 mul.rn.f32 %f1, %f2, %f3;")["contractible"], float32_in_ptx("mul.f32 %f1;")["contractible"]
    (0, 1)
    """
    opcodes = re.findall(r"^\s*(?:@!?%p\d+\s+)?([a-z]\w*(?:\.\w+)+)", ptx, re.MULTILINE)
    operations = [parts for parts in (opcode.split(".") for opcode in opcodes) if {"f32", "f32x2"} & set(parts)]
    operations += [parts for parts in operations if "f32x2" in parts]  # two in one instruction
    return {
        "fused": sum(parts[0] in ("fma", "mad") for parts in operations),
        "contractible": sum(parts[0] in ("add", "sub", "mul") and "rn" not in parts for parts in operations),
        "approximate": sum("approx" in parts or "full" in parts for parts in operations),
        "flushing": sum("ftz" in parts for parts in operations),
    }


def float32_in_llvm(llir: str) -> dict[str, int]:
    """As `float32_in_ptx`, from LLVM's language: AMD's assembly divides integers by float32 multiply-adds."""
    patterns = {
        "fused": r"@llvm\.fma\.f32",
        "contractible": r"= f(?:add|sub|mul) (?:\w+ )*(?:contract|fast) (?:\w+ )*(?:<\d+ x )?float|@llvm\.fmuladd\.f32",
        "approximate": r"float @llvm\.(?:exp2|log2|amdgcn\.(?:exp2|log|rcp))\.|fdiv (?:\w+ )*(?:afn|arcp)",
        "flushing": r'"denormal-fp-math(?:-f32)?"="(?!ieee)',
    }
    return {name: len(re.findall(pattern, llir)) for name, pattern in patterns.items()}


@dataclass
class Instruction:
    """Of machine code: `text` as nvdisasm prints it, the `functions` of the source that it is of, innermost first."""

    text: str
    functions: tuple[str, ...]

    @property
    def opcode(self) -> str:
        return re.sub(r"^@!?U?P\w+\s+", "", self.text).split()[0]

    @property
    def label(self) -> str:
        """The target of a branch, "" of other instructions and of BRA.DIV, which diverging warps alone take."""
        target = re.search(r"`\((\S+)\)", self.text)
        is_branch = self.opcode.startswith("BRA") and self.opcode != "BRA.DIV"
        return target[1] if target and is_branch else ""

    @property
    def falls_through(self) -> bool:
        """Whether the next instruction can follow: not behind a branch or an end without condition."""
        return not re.match(r"BRA `|EXIT$|RET", self.text)

    @property
    def is_call(self) -> bool:
        """Of a function; sm_80 calls a label where it means a branch."""
        return self.opcode.startswith("CALL") and "`(.L" not in self.text

    @property
    def bytes_loaded(self) -> int:
        """From global memory by one thread."""
        if not re.match(r"LDG(STS)?\b", self.opcode):
            return 0
        width = re.search(r"\.[US]?(8|16|64|128|256)\b", self.opcode)
        return int(width[1]) // 8 if width else 4


@dataclass
class Sass:
    """The machine code of a kernel and of its functions, in order; the index of the instruction behind each label."""

    instructions: list[Instruction]
    labels: dict[str, int]


def disassembled(cubin: bytes, nvdisasm: str) -> Sass:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [nvdisasm, "-c", "-gi", file.name]
        return parsed(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def parsed(text: str) -> Sass:
    """Reads the output of nvdisasm: comments name the source of the next instructions, a function, then its caller.

    >>> parsed("//## File ..., line 7" + chr(10) + "/*0010*/  @P0 BRA `(.L_x_0) ;").instructions[0].label
    '.L_x_0'
    """
    sass, functions, in_comments = Sass([], {}), tuple[str, ...](), False
    for line in map(str.strip, text.splitlines()):
        place = re.match(r'//## File "(.*?)", line (\d+)', line)
        if place:
            functions = (*(functions if in_comments else ()), function_at(place[1], int(place[2])))
        elif code := re.match(r"/\*[0-9a-f]+\*/\s+(.*?)\s*;", line):
            sass.instructions.append(Instruction(code[1], functions))
        elif label := re.fullmatch(r"(\.L\w+):", line):
            sass.labels[label[1]] = len(sass.instructions)
        in_comments = bool(place)
    return sass


def function_at(path: str, line: int) -> str:
    """The name of the function around a line of a source file, or ""."""
    inside = [(first, name) for first, last, name in functions_of(path) if first <= line <= last]
    return max(inside, default=(0, ""))[1]


@functools.cache
def functions_of(path: str) -> list[tuple[int, int, str]]:
    if not Path(path).is_file():
        return []
    nodes = ast.walk(ast.parse(Path(path).read_text(encoding="utf-8")))
    return [(node.lineno, node.end_lineno or 0, node.name) for node in nodes if isinstance(node, ast.FunctionDef)]


def streaming_loops(sass: Sass, itemsize: int, a_turn: int) -> dict[str, dict[str, float]]:
    """Of each loop over a row: its instructions a logit, and its barriers in 32 logits of a thread.

    Left out if a thread does not load `a_turn` logits in a turn, or if the loop has another branch or a call: then it
    was not understood.
    """
    found: dict[str, dict[str, float]] = {}
    for loop in loops_of(sass):
        code = [sass.instructions[i] for i in loop]
        function = next((name for name in STREAMING if name in code[-1].functions), "")
        logits = sum(i.bytes_loaded for i in code) // itemsize
        if function and logits == a_turn and not any(i.label or i.is_call for i in code[:-1]):
            barriers = sum(i.opcode.startswith("BAR") for i in code)
            found[function] = {"instructions": round(len(code) / logits, 1), "barriers": 32 * barriers / logits}
    return found


def whole_program(sass: Sass, logits: int) -> float:
    """Instructions a logit of a program without loops, for which a thread loads so many logits.

    All are counted but those of SELDOM, and the empty ones behind the end.
    """
    code = [i for i in sass.instructions if SELDOM not in i.functions and i.opcode != "NOP"]
    return round(len(code) / logits, 1)


def loops_of(sass: Sass) -> Iterator[range]:
    """From where a branch leads back to, up to the branch."""
    for index, instruction in enumerate(sass.instructions):
        head = sass.labels.get(instruction.label, index + 1)
        if head <= index:
            yield range(head, index + 1)
