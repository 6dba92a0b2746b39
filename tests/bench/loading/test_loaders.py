"""The loaders that are compared, and those that are skipped; wrong ones are in test_load.py."""

from bench.loading import loaders
from bench.loading.loaders import LOADERS, skipped


def test_what_is_skipped_and_why(monkeypatch):
    version = loaders.installed
    monkeypatch.setattr(loaders, "installed", lambda name: None if name == "accelerate" else version(name))
    assert skipped(LOADERS, "nf4") == {"transformers": "accelerate is not installed"}
    assert skipped(LOADERS, "float32") == {}
    assert skipped(["alea"], "float32") == {"transformers": "not asked for"}
