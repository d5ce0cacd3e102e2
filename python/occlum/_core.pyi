"""Types of the extension module; crates/python documents each name."""

from typing import Final, final

# sgx

def measure_sgxs(stream: bytes) -> bytes: ...
def tcs_page(*, ossa: int, nssa: int, oentry: int, ofs_base: int, ogs_base: int) -> bytes: ...
def encode_boot_config(json: str) -> bytes: ...

@final
class SigStruct:
    def __init__(
        self,
        *,
        mrenclave: bytes,
        date: int,
        attributes: int,
        attribute_mask: int,
        xfrm: int,
        xfrm_mask: int,
        miscselect: int,
        misc_mask: int,
        isv_prod_id: int,
        isv_svn: int,
        family_id: bytes,
        ext_prod_id: bytes,
    ) -> None: ...
    @staticmethod
    def parse(data: bytes) -> SigStruct: ...
    def verify(self) -> None: ...
    def attach(self, modulus: bytes, signature: bytes) -> SigStruct: ...
    @property
    def signed_bytes(self) -> bytes: ...
    @property
    def vendor(self) -> int: ...
    @property
    def date(self) -> int: ...
    @property
    def mrenclave(self) -> bytes: ...
    @property
    def mrsigner(self) -> bytes: ...
    @property
    def attributes(self) -> int: ...
    @property
    def attribute_mask(self) -> int: ...
    @property
    def xfrm(self) -> int: ...
    @property
    def xfrm_mask(self) -> int: ...
    @property
    def miscselect(self) -> int: ...
    @property
    def misc_mask(self) -> int: ...
    @property
    def isv_prod_id(self) -> int: ...
    @property
    def isv_svn(self) -> int: ...
    @property
    def family_id(self) -> bytes: ...
    @property
    def ext_prod_id(self) -> bytes: ...
    @property
    def modulus(self) -> bytes: ...
    @property
    def signature(self) -> bytes: ...
    @property
    def q1(self) -> bytes: ...
    @property
    def q2(self) -> bytes: ...
    def __bytes__(self) -> bytes: ...

@final
class SgxsWriter:
    def __init__(self, size: int, ssa_frame_size: int) -> None: ...
    def add(self, offset: int, flags: int, data: bytes) -> None: ...
    def finish(self) -> tuple[bytes, bytes]: ...

PAGE_SIZE: Final[int]
ELRANGE_BASE: Final[int]
ELRANGE_SIZE: Final[int]
KERNEL_BASE: Final[int]
BOOT_CONFIG_BASE: Final[int]
BOOT_CONFIG_MAX: Final[int]
VCPU_AREA_BASE: Final[int]
VCPU_AREA_STRIDE: Final[int]
MAX_VCPUS: Final[int]
VCPU_TCS: Final[int]
VCPU_SSA: Final[int]
SSA_FRAMES: Final[int]
SSA_FRAME_PAGES: Final[int]
SSA_FRAME_SIZE: Final[int]
VCPU_PAGE: Final[int]
VCPU_EXCEPTION_STACK: Final[int]
VCPU_EXCEPTION_STACK_SIZE: Final[int]
VCPU_IDLE_STACK: Final[int]
VCPU_IDLE_STACK_SIZE: Final[int]
SECINFO_R: Final[int]
SECINFO_W: Final[int]
SECINFO_X: Final[int]
SECINFO_TCS: Final[int]
SECINFO_REG: Final[int]
ATTRIBUTE_DEBUG: Final[int]
ATTRIBUTE_MODE64BIT: Final[int]
ATTRIBUTE_KSS: Final[int]
XFRM_LEGACY: Final[int]
XFRM_AVX: Final[int]
XFRM_AVX512: Final[int]
XFRM_PKRU: Final[int]
XFRM_AMX: Final[int]
MISCSELECT_EXINFO: Final[int]
BOOT_CONFIG_VERSION: Final[int]
