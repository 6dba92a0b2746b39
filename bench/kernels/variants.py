"""The variants of every Triton kernel that the launcher launches, and the GPUs that they are compiled for."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

TARGETS: dict[str, tuple[str, int | str, int]] = {  # backend, architecture, threads of a warp
    "sm_80": ("cuda", 80, 32),
    "sm_90": ("cuda", 90, 32),
    "sm_100": ("cuda", 100, 32),
    "gfx942": ("hip", "gfx942", 64),
}
DTYPES = ("float32", "float16", "bfloat16")
EVEN, ODD = 32_000, 32_001  # vocabularies: where rows are divisible by 16, loads are of 16 bytes
CHANGES = (  # that step 0 makes to the logits
    ("bias",),
    ("allowed",),
    ("allowed bits",),
    ("history",),
    ("bias", "allowed", "history"),
)


@dataclass(frozen=True)
class Variant:
    """A kernel, and everything that its machine code depends on."""

    kernel: str
    dtype: str = "float32"
    vocabulary: int = EVEN
    details: bool = False
    changes: tuple[str, ...] = ()
    purpose: str = ""  # of weigh_kernel: to draw; of choose_kernel: to limit

    def __str__(self) -> str:
        words = [self.dtype, *self.changes, *[self.purpose] * bool(self.purpose)]
        return ", ".join(words + ["details"] * self.details + ["odd V"] * (self.vocabulary % 16 > 0))


@dataclass(frozen=True)
class Counted:
    """A draw whose host work is counted, or whose searches are, in the interpreter."""

    count: str  # host or interpreted
    kind: str
    filters: str

    def __str__(self) -> str:
        return f"{self.count}, {self.kind} rows, {self.filters}"


COUNTED = [
    *(Counted("host", "peaked", filters) for filters in ("none", "k50+p.9", "p.9")),
    *(Counted("interpreted", "peaked", filters) for filters in ("k50+p.9", "p.9")),
    *(Counted("interpreted", kind, "p.9") for kind in ("flat", "tied")),
]


def variants() -> list[Variant]:
    """All of them."""
    rows = list(product(DTYPES, (EVEN, ODD)))
    drawing = [(*row, details) for row in rows for details in (False, True)]
    return [
        *(Variant("maxima_kernel", *row) for row in rows),
        *(Variant(kernel, *row) for kernel in ("weigh_kernel", "one_read_kernel") for row in rows),
        *(Variant("weigh_kernel", *row, purpose="draw") for row in drawing),
        *(Variant("choose_kernel", *row) for row in drawing),
        *(Variant("choose_kernel", *row, purpose="limits") for row in rows),
        *(Variant("filtered_kernel", *row) for row in rows),
        Variant("weights_kernel"),
        Variant("floors_kernel"),
        *(Variant("penalise_kernel", *row, changes=changes) for row in rows for changes in CHANGES),
    ]


def one_of_each(dtype: str = "float32") -> list[Variant]:
    """Each kernel once, with all that it can do."""
    return [
        Variant("maxima_kernel", dtype),
        Variant("weigh_kernel", dtype, details=True, purpose="draw"),
        Variant("one_read_kernel", dtype),
        Variant("choose_kernel", dtype, details=True),
        Variant("filtered_kernel", dtype),
        Variant("penalise_kernel", dtype, changes=CHANGES[-1]),
        *(Variant(kernel) for kernel in ("weights_kernel", "floors_kernel")),
    ]
