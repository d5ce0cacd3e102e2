"""What an enclave may be created with, as its SIGSTRUCT says it.

EINIT compares ``value & mask`` of ATTRIBUTES, XFRM and MISCSELECT; a bit outside the mask is the
loader's choice. Ours are fixed but for two kinds:

DEBUG
    A debuggable enclave may also be loaded without DEBUG (a release of it); one that is not
    debuggable can't be opened with EDBGRD by any loader.

XFRM beyond x87 and SSE
    AVX and AVX-512 are taken if the CPU has them, so one signed image runs on every CPU and
    programs find what they would find outside. They are states that the enclave's own code uses,
    saved and cleared by the CPU at each exit; a host that takes them away costs speed only. States
    that a program could be led to depend on (PKRU, AMX) stay off unless the configuration wants
    them. A loader takes a state that is named in the value but not fixed by the mask when the CPU
    has it.
"""

from __future__ import annotations

import datetime
import enum
from dataclasses import dataclass

from occlum import _core
from occlum._core import SigStruct
from occlum.errors import Error

_ALL_64 = (1 << 64) - 1
_ALL_32 = (1 << 32) - 1


class Feature(enum.IntEnum):
    """An optional CPU feature, by its number in ``Occlum.json``."""

    OFF = 0
    REQUIRED = 1
    IF_AVAILABLE = 2


@dataclass(frozen=True)
class Identity:
    """What a SIGSTRUCT says beside MRENCLAVE; ``metadata`` and ``feature`` of ``Occlum.json``.

    ``family_id`` and ``ext_prod_id`` are 128-bit numbers (``high << 64 | low``) and need
    ``enable_kss``.
    """

    product_id: int = 0
    version_number: int = 0
    debuggable: bool = True
    enable_kss: bool = False
    family_id: int = 0
    ext_prod_id: int = 0
    pkru: Feature = Feature.OFF
    amx: Feature = Feature.OFF

    def __post_init__(self) -> None:
        _check_range("product_id", self.product_id, 16)
        _check_range("version_number", self.version_number, 16)
        _check_range("family_id", self.family_id, 128)
        _check_range("ext_prod_id", self.ext_prod_id, 128)
        if (self.family_id or self.ext_prod_id) and not self.enable_kss:
            raise Error(
                "family_id and ext_prod_id are set, but key separation is off",
                hint='set "enable_kss": true, or both ids to 0',
                code="config",
            )


def unsigned_sigstruct(
    mrenclave: bytes, identity: Identity, date: datetime.date | None = None
) -> SigStruct:
    """The SIGSTRUCT to be signed."""
    attributes, attribute_mask = _attributes(identity)
    xfrm, xfrm_mask = _xfrm(identity)
    return SigStruct(
        mrenclave=mrenclave,
        date=_bcd(date or datetime.datetime.now(datetime.UTC).date()),
        attributes=attributes,
        attribute_mask=attribute_mask,
        xfrm=xfrm,
        xfrm_mask=xfrm_mask,
        miscselect=_core.MISCSELECT_EXINFO,
        misc_mask=_ALL_32,
        isv_prod_id=identity.product_id,
        isv_svn=identity.version_number,
        family_id=identity.family_id.to_bytes(16, "little"),
        ext_prod_id=identity.ext_prod_id.to_bytes(16, "little"),
    )


def _attributes(identity: Identity) -> tuple[int, int]:
    value, mask = _core.ATTRIBUTE_MODE64BIT, _ALL_64
    if identity.enable_kss:
        value |= _core.ATTRIBUTE_KSS
    if identity.debuggable:
        value |= _core.ATTRIBUTE_DEBUG
        mask &= ~_core.ATTRIBUTE_DEBUG
    return value, mask


def _xfrm(identity: Identity) -> tuple[int, int]:
    value, mask = _core.XFRM_LEGACY, _ALL_64
    states = [
        (_core.XFRM_AVX | _core.XFRM_AVX512, Feature.IF_AVAILABLE),
        (_core.XFRM_PKRU, identity.pkru),
        (_core.XFRM_AMX, identity.amx),
    ]
    for bits, feature in states:
        if feature is not Feature.OFF:
            value |= bits
        if feature is Feature.IF_AVAILABLE:
            mask &= ~bits
    return value, mask


def _bcd(date: datetime.date) -> int:
    return int(date.strftime("%Y%m%d"), 16)


def _check_range(name: str, value: int, bits: int) -> None:
    if not 0 <= value < 1 << bits:
        raise Error(f"{name} is {value}; expected 0 to {(1 << bits) - 1}", code="config")
