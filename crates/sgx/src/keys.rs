//! EREPORT and EGETKEY of a *simulated* CPU.
//!
//! What each key depends on is the architecture's ([`Dependencies`]); how it is derived from there is
//! not, and here it is AES-128-CMAC under secrets that carry the label [`LABEL`]. So no key or report
//! made here can equal one of real hardware. None of them protects anything either: whoever knows the
//! seed, the host for one, can derive them all.

use crate::attributes::{AttributeFlags, Attributes};
use crate::einit::Enclave;
use crate::keyrequest::{KeyName, KeyPolicy, KeyRequest};
use crate::report::{Report, TargetInfo};
use aes::Aes128;
use cmac::{Cmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromZeros, Immutable, IntoBytes, Unaligned};

/// Goes into every secret of a simulated CPU.
pub const LABEL: &[u8] = b"occlum simulated CPU, version 1";

/// CPUSVN of the simulated CPU, in every component.
const CPU_SVN: [u8; 16] = [1; 16];

/// Attributes that any masked key depends on, asked for or not.
const ALWAYS_SEALED: AttributeFlags = AttributeFlags::INIT.union(AttributeFlags::DEBUG);

/// A CPU without hardware. One seed, one CPU: keys and reports of one are no use on another.
#[derive(Clone)]
pub struct SimulatedCpu {
    /// Known to the maker of the CPU, too: what provisioning keys derive from.
    provisioning_root: [u8; 16],
    /// Known to the CPU alone.
    seal_fuses: [u8; 16],
    owner_epoch: [u8; 16],
    /// KEYID that its reports carry.
    report_key_id: [u8; 32],
}

/// Why EGETKEY gives no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EgetkeyError {
    /// #GP
    #[error("reserved bits of KEYREQUEST are not zero")]
    Reserved,
    /// #GP
    #[error("KEYREQUEST uses key separation, but the enclave lacks the KSS attribute")]
    NeedsKss,
    #[error("the enclave lacks the attribute that this key needs")]
    Attribute,
    #[error("KEYREQUEST.CPUSVN is beyond the CPU's own")]
    CpuSvn,
    #[error("KEYREQUEST.ISVSVN or CONFIGSVN is beyond the enclave's own")]
    IsvSvn,
    #[error("KEYREQUEST.KEYNAME {0} is unknown")]
    KeyName(u16),
}

impl EgetkeyError {
    /// The code in RAX; `None` if the instruction faults with #GP.
    pub fn code(&self) -> Option<u32> {
        match self {
            EgetkeyError::Reserved | EgetkeyError::NeedsKss => None,
            EgetkeyError::Attribute => Some(2),
            EgetkeyError::CpuSvn => Some(32),
            EgetkeyError::IsvSvn => Some(64),
            EgetkeyError::KeyName(_) => Some(256),
        }
    }
}

/// Why EREPORT makes no report (#GP).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EreportError {
    #[error("reserved bytes of TARGETINFO are not zero")]
    Reserved,
}

/// The report was not made on this CPU for this enclave, or was changed since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the report's MAC does not verify")]
pub struct ReportForged;

impl SimulatedCpu {
    pub fn new(seed: &[u8; 32]) -> SimulatedCpu {
        SimulatedCpu {
            provisioning_root: secret(seed, b"provisioning root"),
            seal_fuses: secret(seed, b"seal fuses"),
            owner_epoch: secret(seed, b"owner epoch"),
            report_key_id: digest(seed, b"report key id"),
        }
    }

    pub fn cpu_svn(&self) -> [u8; 16] {
        CPU_SVN
    }

    /// EREPORT executed by `enclave`.
    pub fn ereport(
        &self,
        enclave: &Enclave,
        target: &TargetInfo,
        report_data: &[u8; 64],
    ) -> Result<Report, EreportError> {
        if !target.reserved_is_zero() {
            return Err(EreportError::Reserved);
        }
        let mut report = Report::unsigned(enclave, report_data);
        report.cpu_svn = CPU_SVN;
        report.key_id = self.report_key_id;
        let key = self.report_key(target, &report.key_id);
        report.mac = mac(&key, report.body()).finalize().into_bytes().into();
        Ok(report)
    }

    /// EGETKEY executed by `enclave`.
    pub fn egetkey(
        &self,
        enclave: &Enclave,
        request: &KeyRequest,
    ) -> Result<[u8; 16], EgetkeyError> {
        let from = match check_request(enclave, request)? {
            KeyName::Report => {
                return Ok(self.report_key(&TargetInfo::of(enclave), &request.key_id));
            }
            KeyName::Seal => self.of_seal_key(enclave, request)?,
            KeyName::Provision => of_provision_key(enclave, request)?,
            KeyName::ProvisionSeal => self.of_provision_seal_key(enclave, request)?,
            KeyName::EinitToken => self.of_einit_token_key(enclave, request)?,
        };
        Ok(self.derive(&from))
    }

    /// What an enclave does with a report meant for it: derive its report key, check the MAC.
    pub fn verify_report(&self, verifier: &Enclave, report: &Report) -> Result<(), ReportForged> {
        let key = self.report_key(&TargetInfo::of(verifier), &report.key_id);
        mac(&key, report.body())
            .verify_slice(&report.mac)
            .map_err(|_| ReportForged)
    }

    fn of_seal_key(
        &self,
        enclave: &Enclave,
        request: &KeyRequest,
    ) -> Result<Dependencies, EgetkeyError> {
        let mut from = Dependencies::masked(enclave, request)?;
        from.depend_on_policy(enclave, request);
        from.key_id = request.key_id;
        self.depend_on_owner(&mut from);
        Ok(from)
    }

    fn of_provision_seal_key(
        &self,
        enclave: &Enclave,
        request: &KeyRequest,
    ) -> Result<Dependencies, EgetkeyError> {
        check_attribute(enclave, AttributeFlags::PROVISIONKEY)?;
        let mut from = Dependencies::masked(enclave, request)?;
        from.depend_on_policy(enclave, request);
        from.mrenclave = [0; 32];
        from.mrsigner = enclave.secs.mrsigner;
        from.seal_fuses = self.seal_fuses;
        Ok(from)
    }

    fn of_einit_token_key(
        &self,
        enclave: &Enclave,
        request: &KeyRequest,
    ) -> Result<Dependencies, EgetkeyError> {
        check_attribute(enclave, AttributeFlags::EINITTOKENKEY)?;
        let mut from = Dependencies::masked(enclave, request)?;
        from.depend_on_signer(enclave);
        from.key_id = request.key_id;
        self.depend_on_owner(&mut from);
        Ok(from)
    }

    /// The key with which reports for `target` are made.
    fn report_key(&self, target: &TargetInfo, key_id: &[u8; 32]) -> [u8; 16] {
        let mut from = Dependencies {
            name: (KeyName::Report as u16).into(),
            cpu_svn: CPU_SVN,
            attributes: target.attributes,
            miscselect: target.miscselect,
            mrenclave: target.mrenclave,
            config_id: target.config_id,
            config_svn: target.config_svn,
            key_id: *key_id,
            ..Dependencies::new_zeroed()
        };
        self.depend_on_owner(&mut from);
        self.derive(&from)
    }

    fn depend_on_owner(&self, from: &mut Dependencies) {
        from.owner_epoch = self.owner_epoch;
        from.seal_fuses = self.seal_fuses;
    }

    fn derive(&self, from: &Dependencies) -> [u8; 16] {
        mac(&self.provisioning_root, from.as_bytes())
            .finalize()
            .into_bytes()
            .into()
    }
}

/// Everything a key may depend on; what a key does not depend on is zero.
///
/// | | SEAL | REPORT | PROVISION | PROVISION_SEAL | EINITTOKEN |
/// |---|---|---|---|---|---|
/// | ATTRIBUTES, MISCSELECT | masked | all | masked | masked | masked |
/// | MRENCLAVE | policy | yes | | | |
/// | MRSIGNER | policy | | yes | yes | yes |
/// | ISVPRODID | unless NOISVPRODID | | yes | unless NOISVPRODID | yes |
/// | ISVSVN | requested | | requested | requested | requested |
/// | CPUSVN | requested | current | requested | requested | requested |
/// | CONFIGID and CONFIGSVN | policy | yes | | policy | |
/// | ISVFAMILYID, ISVEXTPRODID | policy | | | policy | |
/// | KEYID | yes | yes | | | yes |
/// | owner epoch | yes | yes | | | yes |
/// | fuses | yes | yes | | yes | yes |
///
/// INIT and DEBUG survive every mask, so a debug enclave shares no key with a production one.
#[derive(FromZeros, IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Dependencies {
    name: U16,
    policy: U16,
    isv_prod_id: U16,
    isv_svn: U16,
    config_svn: U16,
    cpu_svn: [u8; 16],
    attributes: Attributes,
    attribute_mask: Attributes,
    miscselect: U32,
    misc_mask: U32,
    mrenclave: [u8; 32],
    mrsigner: [u8; 32],
    config_id: [u8; 64],
    isv_family_id: [u8; 16],
    isv_ext_prod_id: [u8; 16],
    key_id: [u8; 32],
    owner_epoch: [u8; 16],
    seal_fuses: [u8; 16],
}

impl Dependencies {
    /// What all keys but the report key have in common.
    fn masked(enclave: &Enclave, request: &KeyRequest) -> Result<Dependencies, EgetkeyError> {
        check_versions(enclave, request)?;
        let asked = request.attribute_mask;
        let mask = Attributes {
            flags: (asked.flags.get() | ALWAYS_SEALED.bits()).into(),
            ..asked
        };
        Ok(Dependencies {
            name: request.name,
            isv_svn: request.isv_svn,
            cpu_svn: request.cpu_svn,
            attributes: enclave.secs.attributes.masked(&mask),
            attribute_mask: mask,
            miscselect: (enclave.secs.miscselect.get() & request.misc_mask.get()).into(),
            misc_mask: request.misc_mask,
            ..Dependencies::new_zeroed()
        })
    }

    fn depend_on_signer(&mut self, enclave: &Enclave) {
        self.mrsigner = enclave.secs.mrsigner;
        self.isv_prod_id = enclave.secs.isv_prod_id;
    }

    fn depend_on_policy(&mut self, enclave: &Enclave, request: &KeyRequest) {
        let policy = KeyPolicy::from_bits_retain(request.policy.get());
        self.policy = request.policy;
        if policy.contains(KeyPolicy::MRENCLAVE) {
            self.mrenclave = enclave.secs.mrenclave;
        }
        if policy.contains(KeyPolicy::MRSIGNER) {
            self.mrsigner = enclave.secs.mrsigner;
        }
        if !policy.contains(KeyPolicy::NOISVPRODID) {
            self.isv_prod_id = enclave.secs.isv_prod_id;
        }
        if policy.contains(KeyPolicy::CONFIGID) {
            self.config_id = enclave.secs.config_id;
            self.config_svn = request.config_svn;
        }
        if policy.contains(KeyPolicy::ISVFAMILYID) {
            self.isv_family_id = enclave.isv_family_id;
        }
        if policy.contains(KeyPolicy::ISVEXTPRODID) {
            self.isv_ext_prod_id = enclave.isv_ext_prod_id;
        }
    }
}

fn of_provision_key(enclave: &Enclave, request: &KeyRequest) -> Result<Dependencies, EgetkeyError> {
    check_attribute(enclave, AttributeFlags::PROVISIONKEY)?;
    let mut from = Dependencies::masked(enclave, request)?;
    from.depend_on_signer(enclave);
    Ok(from)
}

fn check_request(enclave: &Enclave, request: &KeyRequest) -> Result<KeyName, EgetkeyError> {
    let policy = request
        .policy()
        .filter(|_| request.reserved_is_zero())
        .ok_or(EgetkeyError::Reserved)?;
    let separates = policy.intersects(KeyPolicy::KSS) || request.config_svn.get() != 0;
    if separates && !enclave.secs.attributes.contains(AttributeFlags::KSS) {
        return Err(EgetkeyError::NeedsKss);
    }
    request
        .name()
        .ok_or(EgetkeyError::KeyName(request.name.get()))
}

fn check_attribute(enclave: &Enclave, needed: AttributeFlags) -> Result<(), EgetkeyError> {
    if enclave.secs.attributes.contains(needed) {
        Ok(())
    } else {
        Err(EgetkeyError::Attribute)
    }
}

fn check_versions(enclave: &Enclave, request: &KeyRequest) -> Result<(), EgetkeyError> {
    if request
        .cpu_svn
        .iter()
        .zip(CPU_SVN)
        .any(|(asked, own)| *asked > own)
    {
        return Err(EgetkeyError::CpuSvn);
    }
    let is_beyond = |asked: U16, own: U16| asked.get() > own.get();
    let secs = &enclave.secs;
    if is_beyond(request.isv_svn, secs.isv_svn) || is_beyond(request.config_svn, secs.config_svn) {
        return Err(EgetkeyError::IsvSvn);
    }
    Ok(())
}

fn mac(key: &[u8; 16], message: &[u8]) -> Cmac<Aes128> {
    let mut mac = Cmac::<Aes128>::new(&(*key).into());
    mac.update(message);
    mac
}

fn secret(seed: &[u8; 32], purpose: &[u8]) -> [u8; 16] {
    let digest = digest(seed, purpose);
    let (half, _) = digest
        .split_first_chunk()
        .expect("a SHA-256 has two halves");
    *half
}

fn digest(seed: &[u8; 32], purpose: &[u8]) -> [u8; 32] {
    Sha256::new()
        .chain_update(LABEL)
        .chain_update([0])
        .chain_update(purpose)
        .chain_update(seed)
        .finalize()
        .into()
}
