"""Which package may import which, and one basename a concept on every backend."""

import ast
import os
import re
import shutil
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from samplers.reference.filters import FILTERS

ROOT = Path(__file__).parents[1]
ALLOWED = {  # folder: packages of this project that it may import
    "samplers/reference": {"samplers.reference"},
    "samplers/kernels": {"samplers.kernels"},
    "samplers": {"samplers"},
    "model/reference": {"model.reference"},
    "model": {"samplers", "model"},
    "bench": {"samplers", "model", "bench"},
}
OUTSIDE = {"samplers/reference": {"numpy"}, "model/reference": {"numpy"}, "samplers/kernels": {"torch", "triton"}}
CONCEPTS = {
    "penalties",
    "fixed_point",
    "order",
    "kept",
    "top_k",
    "top_p",
    "cutoffs",
    "typical",
    "philox",
    "draw",
    "sampler",
}
STANDARD = set(__import__("sys").stdlib_module_names)


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
    return names


def home(path: Path) -> str:
    """The most specific folder of ALLOWED that holds the file."""
    inside = [folder for folder in ALLOWED if (ROOT / folder) in path.parents]
    return max(inside, key=len)


SOURCES = [path for package in ("samplers", "model", "bench") for path in sorted((ROOT / package).rglob("*.py"))]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_import_directions(path: Path):
    folder = home(path)
    for name in imports(path):
        package = name.split(".")[0]
        if package in ("samplers", "model", "bench", "tests"):
            assert any(name == a or name.startswith(a + ".") for a in ALLOWED[folder]), f"{path} imports {name}"
        elif folder in OUTSIDE:
            assert package in OUTSIDE[folder] | STANDARD, f"{path} imports {name}"


def test_one_basename_on_every_backend():
    names = {
        "reference": {path.stem for path in (ROOT / "samplers/reference").glob("*.py")},
        "kernels": {path.stem for path in (ROOT / "samplers/kernels").glob("*.py")},
        "csrc": {path.stem for path in (ROOT / "csrc").glob("*.h")},
    }
    for backend, found in names.items():
        assert found >= CONCEPTS, f"{backend} lacks {CONCEPTS - found}"


def test_one_basename_for_each_operation_of_a_forward_pass():
    """NumPy's operations are functions of the same name in files of the same name in C++."""
    for path in (ROOT / "model/reference").glob("[!_]*.py"):
        header = (ROOT / "csrc/model" / f"{path.stem}.h").read_text()
        for name in re.findall(r"^def (attend|exponential|linear|norm|rotate|swiglu|folded)\(", path.read_text(), re.M):
            assert re.search(rf"\b{name}\(", header), f"csrc/model/{path.stem}.h lacks {name}"


FUNCTIONS = {  # of each concept, the functions that have one name on every backend
    "penalties": {"penalise"},
    "fixed_point": {"bound", "surprisal", "mean_surprisal"},
    "order": {"first_in_order", "nth_greatest"},
    "philox": {"random_bits"},
    "draw": {"draw"},
    "sampler": {"weigh", "keep", "entropy"},
}


@pytest.mark.parametrize("concept", FUNCTIONS)
def test_one_function_name_on_every_backend(concept):
    for path in (f"samplers/reference/{concept}.py", f"samplers/kernels/{concept}.py", f"csrc/{concept}.h"):
        text = (ROOT / path).read_text()
        for name in FUNCTIONS[concept]:
            assert re.search(rf"^(?:def|inline .*?\b|.*?\b) ?{name}\(", text, re.M), f"{path} lacks {name}"


@pytest.mark.parametrize("concept", [f.concept for f in FILTERS])
def test_each_filter_is_a_function_of_one_file_on_every_backend(concept):
    homes = [
        {path.stem for path in (ROOT / folder).glob(f"*.{suffix}") if re.search(head, path.read_text(), re.M)}
        for folder, suffix, head in (
            ("samplers/reference", "py", rf"^def {concept}\("),
            ("samplers/kernels", "py", rf"^def {concept}\("),
            ("csrc", "h", rf"^inline Mask {concept}\("),
        )
    ]
    assert len(homes[0]) == 1 and homes[0] == homes[1] == homes[2]


def test_the_contract_of_the_backends_is_typed():
    for path in (ROOT / "samplers/backends").glob("*.py"):
        assert not re.search(r"\bAny\b", path.read_text()), f"{path} says Any"


def test_import_cycles():
    """No module of the project imports itself through others. Imports in functions count, those for types do not."""
    graph = {module_name(path): project_imports(path) for path in SOURCES}
    graph["model.llama"].remove("model.loading.weights")  # Llama.from_pretrained, a shortcut to the loader
    assert not cycles(graph)


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def project_imports(path: Path) -> set[str]:
    """The modules of this project that a file imports; of `from package import name`, the module where it is one."""
    modules: set[str] = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tree.body = [node for node in tree.body if not is_for_types(node)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            modules |= {name if name in MODULES else node.module or "" for name in names}
    return modules & MODULES - {module_name(path)}


def is_for_types(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


MODULES = {module_name(path) for path in SOURCES}


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The groups of modules that import each other, by Tarjan's algorithm as graphlib finds the first."""
    found, left = [], {name: set(after) for name, after in graph.items()}
    while True:
        try:
            tuple(TopologicalSorter(left).static_order())
            return found
        except CycleError as error:
            cycle = error.args[1]
            found.append(cycle)
            left[cycle[1]].discard(cycle[0])
            left[cycle[0]].discard(cycle[1])


def tracked() -> list[str]:
    """Files that git tracks; none outside a checkout."""
    command = ["git", "-C", str(ROOT), "ls-files"]
    return subprocess.run(command, capture_output=True, text=True).stdout.splitlines()


def test_top_level_folders():
    folders = {path.split("/")[0] for path in tracked() if "/" in path and not path.startswith(".")}
    assert folders <= {"bench", "csrc", "docs", "model", "samplers", "tests"}


def test_cpp_format():
    """`.clang-format`, as `clang-format -i csrc/*` applies it."""
    clang_format = shutil.which("clang-format", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if clang_format is None:
        pytest.skip("clang-format is not installed: pip install -e '.[test]'")
    sources = [path for path in tracked() if path.endswith((".h", ".cpp"))]
    done = subprocess.run([clang_format, "--dry-run", "--Werror", *sources], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:2000]
