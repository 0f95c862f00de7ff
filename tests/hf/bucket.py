"""A bucket in memory, where the paths of gs:// lead to."""

import pytest
from etils.epath import backend
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem


class Bucket(MemoryFileSystem):
    """Has no folders but those that are in the names of its files, and renames nothing."""

    store: dict = {}  # noqa: RUF012 - as fsspec's own
    pseudo_dirs: list = [""]  # noqa: RUF012
    cachable = False

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(str(path).removeprefix("gs:/").lstrip("/"))


def use_bucket(monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """Let gs:// mean a new bucket."""
    Bucket.store, Bucket.pseudo_dirs = {}, [""]
    bucket, local = Bucket(), LocalFileSystem()
    found = {"gcs": bucket, "file": local}
    monkeypatch.setattr(backend.fsspec_backend, "_get_filesystem", found.__getitem__)
    return bucket
