//! The keys and certificates of one control plane.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};

/// A certificate and its key, in PEM.
#[derive(Debug)]
pub(super) struct Certificate {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// A certificate authority. Its certificates do not expire in the life of a test ground.
#[derive(Debug)]
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(super) fn new() -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name = name("catamaran-e2e", None);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        Ok(Self(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
    }

    /// The authority's own certificate, in PEM.
    pub(super) fn certificate(&self) -> String {
        self.0.pem()
    }

    /// The authority's key, in PEM.
    pub(super) fn key(&self) -> String {
        self.0.key().serialize_pem()
    }

    /// A client certificate: Kubernetes takes the user from the common name and the group from the organization.
    pub(super) fn client(&self, user: &str, group: Option<&str>) -> Result<Certificate> {
        let mut params = CertificateParams::default();
        params.distinguished_name = name(user, group);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&params)
    }

    /// A server certificate for the loopback address, the names under which pods would know the API server, and other
    /// addresses.
    pub(super) fn api_server(&self, others: &[Ipv4Addr]) -> Result<Certificate> {
        let names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];
        let mut params = CertificateParams::new(names.map(str::to_owned))?;
        let addresses = others.iter().copied().chain([Ipv4Addr::LOCALHOST]);
        params.subject_alt_names.extend(addresses.map(|ip| SanType::IpAddress(IpAddr::V4(ip))));
        params.distinguished_name = name("kube-apiserver", None);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(&params)
    }

    /// A server certificate for names, the loopback address among them.
    pub(super) fn server(&self, names: &[String]) -> Result<Certificate> {
        let mut params = CertificateParams::new(names)?;
        params.subject_alt_names.push(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        params.distinguished_name = name("server", None);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(&params)
    }

    fn sign(&self, params: &CertificateParams) -> Result<Certificate> {
        let key = KeyPair::generate()?;
        Ok(Certificate { certificate: params.signed_by(&key, &self.0)?.pem(), key: key.serialize_pem() })
    }
}

/// The key that signs ServiceAccount tokens, and its public half that verifies them, in PEM.
pub(super) fn service_account_keys() -> Result<(String, String)> {
    let key = KeyPair::generate()?;
    Ok((key.serialize_pem(), key.public_key_pem()))
}

fn name(common_name: &str, organization: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    name
}
