//! Certificates of a cluster: an authority, what it signed for gateways and engines, and what another
//! authority signed.

use std::fs::{self, Permissions};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// Writes `authority.pem`, and `<name>.pem` with `<name>.key` for `gateway`, `engine` and `foreign`, an
/// engine of whom the authority has never heard. Gateways have these addresses.
///
/// # Panics
/// If the directory cannot be written.
pub fn write(directory: &Path, addresses: &[IpAddr]) {
    let names: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
    let ours = authority("authority of the test");
    let foreign = authority("another authority");
    save(directory, "authority.pem", &ours.0);
    let leaves = [
        ("gateway", &ours.1, names, ExtendedKeyUsagePurpose::ServerAuth),
        ("engine", &ours.1, vec!["engine.test".into()], ExtendedKeyUsagePurpose::ClientAuth),
        ("foreign", &foreign.1, vec!["engine.test".into()], ExtendedKeyUsagePurpose::ClientAuth),
    ];
    for (name, issuer, names, usage) in leaves {
        let key = KeyPair::generate().expect("a source of random numbers");
        let mut leaf = CertificateParams::new(names).expect("addresses and names");
        leaf.distinguished_name.push(DnType::CommonName, name);
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![usage];
        let certificate = leaf.signed_by(&key, issuer).expect("a complete request");
        save(directory, &format!("{name}.pem"), &certificate.pem());
        save(directory, &format!("{name}.key"), &key.serialize_pem());
    }
}

fn authority(name: &str) -> (String, Issuer<'static, KeyPair>) {
    let key = KeyPair::generate().expect("a source of random numbers");
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let certificate = params.self_signed(&key).expect("a complete request");
    (certificate.pem(), Issuer::new(params, key))
}

/// A file that only its owner can read.
pub(super) fn save(directory: &Path, name: &str, text: &str) {
    let path = directory.join(name);
    fs::write(&path, text).expect("a file");
    fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("it is ours");
}
