"""The kinds of places that models come from, and what is asked of each: no other code asks of which kind a model is.

`spec` is a model's entry in the configuration. No heavy imports: every dry run asks.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import yaml

from leap_repro.errors import UserError
from leap_repro.hub.card import licence_of
from leap_repro.hub.lock import Lock, obey, repositories
from leap_repro.miniature.bundled import bundled_models
from leap_repro.models.fetch import fetch_bundled, fetch_hub, fetch_path
from leap_repro.places import expanded

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
Spec = dict[str, Any]


class ModelSource(ABC):
    """One kind. `scale` of config.yaml has sizes, options and data that suit its models; those that are `tiny` take one
    core, no GPU and float32."""

    scale: ClassVar[str] = "open"
    is_tiny: ClassVar[bool] = False

    @abstractmethod
    def meant(self, model: str, revision: str) -> Spec | None:
        """The spec of what a command line calls `model`, if of this kind; `revision` is a commit, branch or tag."""

    @abstractmethod
    def name(self, spec: Spec) -> str:
        """What the model is called at its place."""

    @abstractmethod
    def folder(self, spec: Spec) -> Path | None:
        """Where it lies on this machine before it is fetched, None if elsewhere; UserError, "<key> is <value>; …", if
        it is not where it should be."""

    @abstractmethod
    def fetch(self, spec: Spec, payload: Path, lock: Lock) -> dict[str, str]:
        """Fill the folder `payload` with its checkpoint; what the manifest is to say of where it came from. UserError
        as the kind's function in `fetch.py`."""

    @abstractmethod
    def licence(self, spec: Spec, lock: Lock) -> str | None:
        """As its card says; None if that says nothing."""


class PathSource(ModelSource):
    """A Hugging Face folder on this machine."""

    def meant(self, model: str, revision: str) -> Spec | None:
        """A folder that exists."""
        folder = Path(model).expanduser()
        return {"source": "path", "path": str(folder.absolute())} if folder.is_dir() else None

    def name(self, spec: Spec) -> str:
        """The folder's."""
        return Path(spec["path"]).name

    def folder(self, spec: Spec) -> Path | None:
        """The folder that the configuration names."""
        folder = expanded(Path(spec["path"]), "path")
        if not folder.is_dir():
            raise UserError(f"path is {spec['path']!r}; it must be a folder that exists")
        return folder

    def fetch(self, spec: Spec, payload: Path, lock: Lock) -> dict[str, str]:
        """Copied and linked."""
        fetch_path(spec, payload)
        return {}

    def licence(self, spec: Spec, lock: Lock) -> str | None:
        """From the front matter of README.md."""
        try:
            text = (Path(spec["path"]) / "README.md").read_text(encoding="utf-8")
            return str(yaml.safe_load(text.split("---")[1])["license"]) if text.startswith("---") else None
        except (OSError, ValueError, KeyError, IndexError, TypeError, yaml.YAMLError):
            return None


class BundledSource(ModelSource):
    """One of the released miniatures."""

    scale = "miniature"
    is_tiny = True

    def meant(self, model: str, revision: str) -> Spec | None:
        """One by its name."""
        return {"source": "bundled", "name": model} if model in bundled_models() else None

    def name(self, spec: Spec) -> str:
        """Its own."""
        return spec["name"]

    def folder(self, spec: Spec) -> Path | None:
        """Within this package."""
        known = bundled_models()
        if spec["name"] not in known:
            raise UserError(f"name is {spec['name']!r}; the bundled models are {sorted(known)}")
        return known[spec["name"]]

    def fetch(self, spec: Spec, payload: Path, lock: Lock) -> dict[str, str]:
        """Copied."""
        fetch_bundled(spec, payload)
        return {}

    def licence(self, spec: Spec, lock: Lock) -> str | None:
        """This package's."""
        return "mit"


class HubSource(ModelSource):
    """A repository of the hub."""

    def meant(self, model: str, revision: str) -> Spec | None:
        """An id, <owner>/<name>."""
        return {"source": "hub", "id": model, "revision": revision} if HUB_ID.fullmatch(model) else None

    def name(self, spec: Spec) -> str:
        """Its id."""
        return spec["id"]

    def folder(self, spec: Spec) -> Path | None:
        """Nowhere here."""
        return None

    def fetch(self, spec: Spec, payload: Path, lock: Lock) -> dict[str, str]:
        """Downloaded at its pinned commit."""
        return {"id": spec["id"], "revision": fetch_hub(spec, payload, lock)}

    def licence(self, spec: Spec, lock: Lock) -> str | None:
        """From its card on the hub, which is asked."""
        (asked,) = repositories(spec, "model")
        return licence_of(obey(lock, asked)[0])


SOURCES: dict[str, ModelSource] = {"path": PathSource(), "bundled": BundledSource(), "hub": HubSource()}
"""{the value of the key `source`: its kind}, in the order in which a command line's MODEL is tried."""


def source_of(spec: Spec) -> ModelSource:
    """The kind of a model's source; UserError for one that there is not."""
    kind = spec.get("source")
    if kind not in SOURCES:
        raise UserError(f"model source {kind!r} is not one of {sorted(SOURCES)}")
    return SOURCES[kind]


def meant_by(model: str, revision: str) -> Spec:
    """The spec of a folder, of a bundled miniature, or of a hub id; UserError for what is none of these."""
    for source in SOURCES.values():
        if found := source.meant(model, revision):
            return found
    raise UserError(
        f"MODEL is {model!r}; it must be a folder that exists, an id on the hub (<owner>/<name>), or one of "
        f"{list(bundled_models())}"
    )
