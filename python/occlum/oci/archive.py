"""Which configuration and layers an image has.

::

    OCI layout            index.json -> manifest -> config, layers     blobs/sha256/HEX
    docker save (older)   manifest.json -> [{Config, RepoTags, Layers}]
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from occlum.oci import OciError
from occlum.oci.blobs import Blobs, read_json

PLATFORM = ("linux", "amd64")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_HEX_NAME = re.compile(r"(?:blobs/sha256/)?([0-9a-f]{64})(?:\.json)?")
_MAX_MANIFESTS = 1000
_MAX_LAYERS = 500
_MAX_DEPTH = 4
_REFERENCE = "org.opencontainers.image.ref.name"


@dataclass(frozen=True)
class Layer:
    """``digest`` is that of the blob as stored, None if unknown; ``diff_id`` of the tar in it."""

    blob: str
    digest: str | None
    diff_id: str


@dataclass(frozen=True)
class Settings:
    """What the image wants to be run as."""

    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    environment: tuple[str, ...]
    directory: str
    user: str


@dataclass(frozen=True)
class Image:
    """``names`` are the references it goes by."""

    names: tuple[str, ...]
    layers: tuple[Layer, ...]
    settings: Settings


def find(blobs: Blobs, reference: str | None) -> Image:
    """The image, which must be the only one unless ``reference`` says which."""
    if blobs.has("index.json"):
        images = list(_from_index(blobs, read_json(blobs, "index.json"), (), 0))
    elif blobs.has("manifest.json"):
        images = list(_from_docker(blobs))
    else:
        raise OciError(
            "this is no container image: it has neither index.json nor manifest.json",
            hint="occlum import takes what docker save, skopeo and umoci write",
        )
    known = sorted({name for image in images for name in image.names})
    if reference is not None:
        images = [image for image in images if reference in image.names]
    if len(images) == 1:
        return images[0]
    what = f"{len(images)} images" if images else "no image"
    named = f" named {reference}" if reference else f" for {'/'.join(PLATFORM)}"
    hint = f"--reference takes one of: {', '.join(known)}" if known else None
    raise OciError(f"the archive has {what}{named}; expected one", hint=hint, code="oci-choice")


def _from_index(blobs: Blobs, index: Any, names: tuple[str, ...], depth: int) -> Iterator[Image]:
    descriptors = _list(index, "manifests", _MAX_MANIFESTS)
    if depth > _MAX_DEPTH:
        raise OciError("the image's indexes are nested too deeply")
    for descriptor in descriptors:
        if not _is_for_us(descriptor):
            continue
        annotations = descriptor.get("annotations")
        name = annotations.get(_REFERENCE) if isinstance(annotations, dict) else None
        here = (*names, name) if isinstance(name, str) else names
        digest = _digest(descriptor)
        manifest = read_json(blobs, _blob(digest), digest)
        if isinstance(manifest, dict) and "manifests" in manifest:
            yield from _from_index(blobs, manifest, here, depth + 1)
        else:
            yield _from_manifest(blobs, manifest, here)


def _is_for_us(descriptor: Any) -> bool:
    if not isinstance(descriptor, dict):
        raise OciError("an index of the image holds something that is no descriptor")
    platform = descriptor.get("platform")
    if not isinstance(platform, dict):
        return True
    return (platform.get("os"), platform.get("architecture")) == PLATFORM


def _from_manifest(blobs: Blobs, manifest: Any, names: tuple[str, ...]) -> Image:
    config = manifest.get("config") if isinstance(manifest, dict) else None
    if not isinstance(config, dict):
        raise OciError("a manifest of the image names no configuration")
    digest = _digest(config)
    document = read_json(blobs, _blob(digest), digest)
    digests = [_digest(each) for each in _list(manifest, "layers", _MAX_LAYERS)]
    layers: list[tuple[str, str | None]] = [(_blob(each), each) for each in digests]
    return Image(names, _layers(layers, document), _settings(document))


def _from_docker(blobs: Blobs) -> Iterator[Image]:
    entries = read_json(blobs, "manifest.json")
    for entry in _list({"manifest.json": entries}, "manifest.json", _MAX_MANIFESTS):
        if not isinstance(entry, dict) or not isinstance(entry.get("Config"), str):
            raise OciError("manifest.json names no configuration")
        named = _HEX_NAME.fullmatch(entry["Config"])
        document = read_json(blobs, entry["Config"], f"sha256:{named[1]}" if named else None)
        names = _strings(entry, "RepoTags")
        layers: list[tuple[str, str | None]] = [(e, None) for e in _strings(entry, "Layers")]
        yield Image(names, _layers(layers, document), _settings(document))


def _layers(blobs: list[tuple[str, str | None]], document: Any) -> tuple[Layer, ...]:
    """Layers with the digests that the configuration, which is verified, gives them."""
    rootfs = document.get("rootfs") if isinstance(document, dict) else None
    diff_ids = _list(rootfs, "diff_ids", _MAX_LAYERS)
    if len(diff_ids) != len(blobs):
        raise OciError(f"the image has {len(blobs)} layers and {len(diff_ids)} digests of layers")
    return tuple(
        Layer(blob, digest, _digest({"digest": diff_id}))
        for (blob, digest), diff_id in zip(blobs, diff_ids, strict=True)
    )


def _settings(document: Any) -> Settings:
    config = document.get("config") or {}
    if not isinstance(config, dict):
        raise OciError("the image's configuration holds no object named config")
    return Settings(
        _strings(config, "Entrypoint"),
        _strings(config, "Cmd"),
        _strings(config, "Env"),
        _string(config, "WorkingDir"),
        _string(config, "User"),
    )


def _digest(descriptor: Any) -> str:
    digest = descriptor.get("digest") if isinstance(descriptor, dict) else None
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise OciError(f"the image has a digest that is no SHA-256: {digest!r}")
    return digest


def _blob(digest: str) -> str:
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def _list(holder: Any, name: str, limit: int) -> list[Any]:
    found = holder.get(name) if isinstance(holder, dict) else None
    if not isinstance(found, list) or len(found) > limit:
        raise OciError(f"{name} of the image is no list of at most {limit} entries")
    return found


def _strings(holder: dict[str, Any], name: str) -> tuple[str, ...]:
    found = holder.get(name)
    found = [] if found is None else found
    if not isinstance(found, list) or not all(
        isinstance(each, str) and "\0" not in each for each in found
    ):
        raise OciError(f"{name} of the image is no list of strings")
    return tuple(found)


def _string(holder: dict[str, Any], name: str) -> str:
    found = holder.get(name) or ""
    if not isinstance(found, str) or "\0" in found:
        raise OciError(f"{name} of the image is no string")
    return found
