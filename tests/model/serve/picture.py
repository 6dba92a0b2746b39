"""The picture of docs/serving.md: `python -m tests.model.serve.picture` renews it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from urllib.parse import urlencode

from PIL import Image

from tests.model.browser import Browser
from tests.model.serve.running import serving

PICTURE = Path(__file__).parents[3] / "docs/pictures/serving.png"
WIDTH, HEIGHT, COLOURS = 1240, 1900, 128
SHOWN = {"top_k": 50, "top_p": 0.9}
ASKED = {
    **{"prompt": "Once upon a time there was a king", "max_tokens": 28, "seed": 7, "temperature": 0.9},
    **SHOWN,
    **{"compare": "yes", "b.temperature": 0.6},
    **{f"b.{name}": value for name, value in SHOWN.items()},
}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as server:
        browser = Browser(Path(folder) / "chromium")
        browser.open(f"{server.url}/#{urlencode(ASKED)}", "document.getElementById('check').textContent !== ''", WIDTH)
        browser.run("document.querySelector('.differs button').click()")
        image = browser.screenshot(Path(folder) / "page.png").crop((0, 0, WIDTH, HEIGHT))
        image.quantize(COLOURS, Image.Quantize.FASTOCTREE).save(PICTURE, optimize=True)
        browser.close()


if __name__ == "__main__":
    main()
