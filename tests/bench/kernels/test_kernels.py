"""What compiling alone proves of the Triton kernels, without a GPU: nothing spills, nothing is fused but the weights.

Oracle: the compilers' own reports. The negative control lets the compilers fuse what they like, and that is found.
"""

from typing import Any

import pytest

from bench.kernels import assembly, kernels
from bench.kernels.variants import CHANGES, Variant, one_of_each, variants
from tests.bench.command import run, saved

triton = pytest.importorskip("triton")

EXHAUSTIVE = pytest.mark.exhaustive
MOST_REGISTERS = {"maxima_kernel": 64, "weigh_kernel": 80, "one_read_kernel": 255, "choose_kernel": 255}
FAST = [Variant("weights_kernel"), Variant("penalise_kernel", changes=CHANGES[-1])]  # in seconds


def test_what_compiles_fast_is_exact_and_spills_nothing():
    records = list(kernels.measured(FAST, ["sm_90"]))
    assert [(record["fused"], kernels.faults(record)) for record in records] == [(8, []), (0, [])]


@EXHAUSTIVE
@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100"])
def test_every_kernel_is_exact_and_spills_nothing(target: str):
    records = list(kernels.measured(one_of_each(), [target], processes=2))
    assert {record["kernel"] for record in records} == {variant.kernel for variant in variants()}
    for record in records:
        assert kernels.faults(record) == [], kernels.name_of(record)
        assert 8 <= record["registers"] <= MOST_REGISTERS.get(record["kernel"], 128) and record["shared"] <= 48 << 10
    fused = {record["kernel"]: record["fused"] for record in records}
    assert fused["weights_kernel"] == 8
    assert fused["weigh_kernel"] > 8 and fused["choose_kernel"] > 8 and fused["filtered_kernel"] >= 8


@EXHAUSTIVE
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(dtype: str):
    records = list(kernels.measured(one_of_each(dtype), ["sm_90"]))
    spilling = "choose_kernel" if dtype == "bfloat16" and triton.__version__ < "3.9" else ""  # some 200 bytes there
    assert len(records) == 8
    for record in records:
        assert kernels.faults(record) == [] or record["kernel"] == spilling, kernels.name_of(record)


@EXHAUSTIVE
def test_what_may_be_fused_would_be_seen():
    """The negative control: the same reader on the same kernels, compiled as Triton does by default."""
    fusing = [Variant(kernel) for kernel in ("weigh_kernel", "filtered_kernel")]
    for record in kernels.measured(fusing, ["sm_90"], enable_fp_fusion=True):
        assert record["contractible"] > 10, kernels.name_of(record)
        assert kernels.faults(record) == [f"contractible {record['contractible']}"]


@EXHAUSTIVE
def test_records_are_lines_of_json(results, monkeypatch, capsys):
    monkeypatch.setattr(kernels, "variants", lambda: [Variant("maxima_kernel")])
    monkeypatch.setattr(kernels, "COUNTED", kernels.COUNTED[:1])
    monkeypatch.setenv("COLUMNS", "160")
    assert run(kernels, "--targets", "sm_90", "gfx942", "--processes", "1", "--save") == 0
    records = saved(results, "kernels")
    assert [record.get("target") for record in records] == ["sm_90", "gfx942", None]
    assert (records[2]["count"], records[2]["launches"]) == ("host", 2)
    for record in records[:2]:
        assert {"kernel", "dtype", "vocabulary", "commit", "machine", "versions"} <= record.keys()
    assert records[0]["spill_stores"] == records[0]["fused"] == 0
    assert "maxima_kernel" in capsys.readouterr().out


def test_a_fault_fails(monkeypatch, capsys):
    clean = {"spill_stores": 0, "spill_loads": 0, "fused": 0, "contractible": 0, "approximate": 0, "flushing": 0}
    record = {
        "target": "sm_90",
        "kernel": "weigh_kernel",
        "dtype": "float32",
        "vocabulary": 1,
        "details": False,
        "changes": (),
        "purpose": "",
    }
    record |= {"registers": 1, "shared": 0, "seconds": 0.0, **clean}

    def found(*records: dict[str, Any]) -> None:
        monkeypatch.setattr(kernels, "one_of_each", lambda: [Variant("k")] * len(records))
        monkeypatch.setattr(kernels, "measured", lambda *_: (one for one in records))

    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr(kernels, "COUNTED", [])
    found(record | {"fused": 2}, record, record | {"spill_loads": 4})
    assert run(kernels, "--quick") == 1
    out = capsys.readouterr().out
    assert [line.split(": ")[1] for line in out.splitlines() if line.startswith("FAIL")] == ["fused 2", "spill_loads 4"]
    found(record | {"target": "gfx942", "spill_stores": 4})
    assert run(kernels, "--quick") == 0  # shown, not judged


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--targets", "sm_90", "z80"], "--targets must be among sm_80, .*, got 'z80'"),
        (["--processes", "0"], "--processes must be >= 1, got 0"),
    ],
)
def test_wrong_options(words: list[str], message: str):
    with pytest.raises(ValueError, match=message):
        run(kernels, *words)


def test_inexact_float32_in_ptx():
    ptx = """
        fma.rn.f32 %f1, %f2, %f3, %f4;
        @%p1 fma.rn.f32x2 %rd1, %rd2, %rd3, %rd4;
        mul.f32 %f1, %f2, %f3; add.rn.f32
        mul.rn.f32 %f1, %f2, %f3;
        @!%p2 ex2.approx.ftz.f32 %f1, %f2;
        lg2.approx.f32 %f1, %f2;
        div.full.f32 %f1, %f2, %f3;
        div.rn.f32 %f1, %f2, %f3;
        fma.rn.f64 %fd1, %fd2, %fd3, %fd4;
        rcp.approx.ftz.f64 %fd1, %fd2;
        // fma.rn.f32
        .loc 1 7 0
    """
    assert assembly.float32_in_ptx(ptx) == {"fused": 3, "contractible": 1, "approximate": 3, "flushing": 1}


def test_inexact_float32_in_llvm():
    clean = "%1 = fmul float %2, %3\n%4 = fadd contract double %5, %6\n%7 = call double @llvm.fma.f64(double %8)"
    bad = '%1 = fmul contract float %2, %3\n%4 = call float @llvm.fmuladd.f32(float %5)\n%6 = fdiv arcp float %7, %8\n"'
    bad += "%9 = call float @llvm.fma.f32(float %1, float %2, float %3)"
    bad += '"denormal-fp-math-f32"="preserve-sign"'
    assert set(assembly.float32_in_llvm(clean).values()) == {0}
    assert assembly.float32_in_llvm(bad) == {"fused": 1, "contractible": 2, "approximate": 1, "flushing": 1}


SOURCE = """
def caller():
    write_masses()

def write_masses():
    for turn in row:
        load()

def load():
    tl.load(x)
"""
MACHINE_CODE = """
.L_x_1:
	//## File "{path}", line 10 inlined at "{path}", line 7
	//## File "{path}", line 7
        /*0010*/              @!P0 LDG.E.128 R28, desc[UR14][R14.64] ;
        /*0020*/              {between} ;
        /*0030*/              FMUL R5, R6, R7 ;
        /*0040*/              BAR.SYNC.DEFER_BLOCKING 0x0 ;
	//## File "{path}", line 6
        /*0050*/              @P2 BRA `(.L_x_1) ;
.L_x_2:
        /*00b0*/              EXIT ;
"""


@pytest.mark.parametrize(
    ("between", "itemsize", "a_turn", "loops"),
    [
        ("FADD R5, R6, R7", 4, 4, {"write_masses": {"instructions": 1.2, "barriers": 8}}),
        ("FADD R5, R6, R7", 2, 8, {"write_masses": {"instructions": 0.6, "barriers": 4}}),
        ("FADD R5, R6, R7", 4, 8, {}),  # loads that it can't explain
        ("@P1 BRA `(.L_x_2)", 4, 4, {}),
        ("CALL.REL.NOINC `($write_masses$other)", 4, 4, {}),
    ],
)
def test_loops_over_a_row(tmp_path, between, itemsize, a_turn, loops):
    """By hand: 5 instructions and a barrier for 4 logits, or for 8 of half the size."""
    source = tmp_path / "source.py"
    source.write_text(SOURCE)
    sass = assembly.parsed(MACHINE_CODE.format(path=source, between=between))
    assert assembly.streaming_loops(sass, itemsize, a_turn) == loops


@pytest.mark.parametrize(
    ("kernel", "fused", "elsewhere"),
    [("weigh_kernel", 408, 0), ("weigh_kernel", 409, 1), ("weights_kernel", 16, 8), ("maxima_kernel", 8, 8)],
)
def test_fused_operations_that_are_no_weights(kernel: str, fused: int, elsewhere: int):
    """By hand: a weight has eight, and some kernels compute none."""
    assert kernels.fused_elsewhere({"kernel": kernel, "fused": fused}) == elsewhere
