"""One browser for all tests of pages that a worker runs; each start takes seconds."""

from collections.abc import Iterator

import pytest

from tests.model.browser import CHROMIUM, Browser


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("chromium is missing")
    one = Browser(tmp_path_factory.mktemp("chromium"))
    yield one
    one.close()
