"""The store over each kind of mapping: StoreContract, and what only some of them can show."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import fsspec
import pytest

from woflo.directory import Directory
from woflo.testing import StoreContract

if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from pathlib import Path


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The promises are about what is kept, not about when."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


class TestDict(StoreContract):
    def make_mapping(self, folder: Path) -> MutableMapping[str, bytes]:
        del folder
        return {}


class TestDirectory(StoreContract):
    def make_mapping(self, folder: Path) -> MutableMapping[str, bytes]:
        return Directory(folder / "store")


class TestFsspecMemory(StoreContract):
    @pytest.fixture(autouse=True)
    def empty(self) -> None:
        fsspec.filesystem("memory").store.clear()

    def make_mapping(self, folder: Path) -> MutableMapping[str, bytes]:
        return fsspec.get_mapper(f"memory://{folder}")


class TestFsspecLocal(StoreContract):
    atomic = False

    def make_mapping(self, folder: Path) -> MutableMapping[str, bytes]:
        return fsspec.get_mapper(f"file://{folder}/files")
