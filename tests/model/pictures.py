"""The pictures of pages in docs/: `python -m tests.model.pictures` renews them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from urllib.parse import urlencode

from PIL import Image

from model import Llama, Tokenizer
from model.study import trace_page
from model.study.decoding_trace import trace_decoding
from samplers import SamplingParams
from tests.model.browser import Browser
from tests.model.serve.running import serving

PICTURES = Path(__file__).parents[2] / "docs/pictures"
TRACE, SERVING = PICTURES / "trace.png", PICTURES / "serving.png"
SIZES = {TRACE: (1180, 1130), SERVING: (1240, 1900)}
COLOURS = 128
CHECKED = "document.getElementById('check').textContent !== ''"
FILTERS = {"top_k": 50, "top_p": 0.9}
COMPARED = {
    **{"prompt": "Once upon a time there was a king", "max_tokens": 28, "seed": 7, "temperature": 0.9},
    **FILTERS,
    **{"compare": "yes", "b.temperature": 0.6},
    **{f"b.{name}": value for name, value in FILTERS.items()},
}


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        browser = Browser(folder / "chromium")
        browser.open(traced_page(folder).as_uri(), CHECKED, SIZES[TRACE][0])
        save(browser, TRACE, folder)
        with serving(folder) as server:
            browser.open(f"{server.url}/#{urlencode(COMPARED)}", CHECKED, SIZES[SERVING][0])
            browser.run("document.querySelector('.differs button').click()")
            save(browser, SERVING, folder)
        browser.close()


def traced_page(folder: Path) -> Path:
    """As the command of docs/decoding.md writes it."""
    params = SamplingParams(**FILTERS, epsilon_cutoff=0.02)
    limits = dict(seed=3, max_new_tokens=8, top=12)
    decoding = trace_decoding(Llama.from_pretrained(), Tokenizer.from_pretrained(), "The dragon", params, **limits)
    page = folder / "trace.html"
    page.write_text(trace_page.render(decoding, {}), encoding="utf-8")
    return page


def save(browser: Browser, picture: Path, folder: Path) -> None:
    """The top of the page, in few colours."""
    image = browser.screenshot(folder / picture.name).crop((0, 0, *SIZES[picture]))
    image.quantize(COLOURS, Image.Quantize.FASTOCTREE).save(picture, optimize=True)


if __name__ == "__main__":
    main()
