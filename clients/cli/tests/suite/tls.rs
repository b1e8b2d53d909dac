//! What each `sslmode` accepts of a server that has a certificate of an authority of its own.

use crate::support::{Ran, finish, program};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use state_cache_server_tests::{Server, Sql};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

/// Writes a file that only the server's user may read.
fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let owner = std::fs::metadata(path.parent().unwrap()).unwrap();
    chown(path, Some(owner.uid()), Some(owner.gid())).unwrap();
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

#[test]
fn sslmode_says_what_is_checked() {
    let server = Server::without_extension(&[]);
    let mut session = server.connect();
    session.run("CREATE EXTENSION state_cache; CREATE ROLE app LOGIN SUPERUSER");
    drop(session);
    server.stop();
    // Addresses of this machine that no other server uses: all listen on the same port.
    let process = std::process::id();
    let [_, _, high, low] = process.to_be_bytes();
    let (right, wrong) = (
        format!("127.77.{high}.{low}"),
        format!("127.78.{high}.{low}"),
    );
    let key = KeyPair::generate().unwrap();
    let ours = authority();
    let certificate = CertificateParams::new(vec![right.clone()]).unwrap();
    let certificate = certificate.signed_by(&key, &ours).unwrap();
    let home = server.host();
    write(&home.join("server.key"), &key.serialize_pem());
    write(&home.join("server.crt"), &certificate.pem());
    write(&home.join("ours.crt"), &ours.pem());
    write(&home.join("other.crt"), &authority().pem());
    server.configure(&[
        &format!("listen_addresses = '{right}, {wrong}'"),
        "ssl = on",
        &format!("ssl_cert_file = '{}/server.crt'", home.display()),
        &format!("ssl_key_file = '{}/server.key'", home.display()),
    ]);
    server.start();
    let ask = |host: &str, mode: &str, roots: &str| -> Ran {
        let roots = match roots {
            "" => String::new(),
            roots => format!("sslrootcert={}/{roots}", home.display()),
        };
        let given = format!("host={host} user=postgres dbname=postgres sslmode={mode} {roots}");
        finish(program().args(["-d", &given, "ls"]))
    };
    for (host, mode, roots, code) in [
        (&right, "disable", "", 0),
        (&right, "prefer", "", 0),
        (&right, "require", "", 0),
        (&right, "require", "other.crt", 3),
        (&wrong, "require", "ours.crt", 0),
        (&wrong, "verify-ca", "ours.crt", 0),
        (&right, "verify-ca", "other.crt", 3),
        (&right, "verify-full", "ours.crt", 0),
        (&wrong, "verify-full", "ours.crt", 3),
        (&right, "verify-full", "", 2),
        (&right, "verify-full", "no_such_file", 2),
    ] {
        let ran = ask(host, mode, roots);
        assert_eq!(ran.code, code, "{host} {mode} {roots}: {}", ran.err);
    }
}
