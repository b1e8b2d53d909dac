//! TLS, as `sslmode` asks for it.
//!
//! | sslmode | what is checked |
//! | --- | --- |
//! | `allow`, `prefer`, `require` | nothing; `require` with a root certificate: as `verify-ca` |
//! | `verify-ca` | who signed the server's certificate |
//! | `verify-full` | that, and the server's name |
//!
//! Root certificates are those of `sslrootcert`, else of `~/.postgresql/root.crt`; `sslrootcert=system` takes those
//! that browsers trust.

use super::parameters::Parameters;
use crate::failure::Failure;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_postgres_rustls::MakeRustlsConnect;

/// Checks as much of the server's certificate as asked for.
#[derive(Debug)]
struct Verifier {
    /// Knows who may sign; none: anybody may.
    signers: Option<Arc<WebPkiServerVerifier>>,
    /// Whether the name must be that of the server.
    name: bool,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(signers) = &self.signers else {
            return Ok(ServerCertVerified::assertion());
        };
        let verdict =
            signers.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verdict {
            // The name is compared last: everything else was right.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.name => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// What makes TLS of a connection.
pub fn connector(parameters: &Parameters) -> Result<MakeRustlsConnect, Failure> {
    let wrong = |error: rustls::Error| Failure::Usage(format!("TLS: {error}"));
    let get = |name: &str| {
        parameters
            .get(name)
            .map(String::as_str)
            .filter(|it| !it.is_empty())
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".postgresql"));
    let at_home = |name: &str| {
        home.as_ref()
            .map(|home| home.join(name))
            .filter(|path| path.exists())
    };
    let mode = get("sslmode").unwrap_or("prefer");
    let mut roots = RootCertStore::empty();
    match get("sslrootcert") {
        Some("system") => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(path) => add(&mut roots, Path::new(path))?,
        None => {
            if let Some(path) = at_home("root.crt") {
                add(&mut roots, &path)?;
            }
        }
    }
    let known = !roots.is_empty();
    let checked = match mode {
        "verify-ca" | "verify-full" if !known => {
            return Err(Failure::Usage(format!(
                "sslmode={mode} needs sslrootcert, or ~/.postgresql/root.crt"
            )));
        }
        "verify-ca" | "verify-full" => true,
        "require" => known,
        _ => false,
    };
    let signers = match checked {
        false => None,
        true => {
            let builder =
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone());
            Some(
                builder
                    .build()
                    .map_err(|error| Failure::Usage(format!("sslrootcert: {error}")))?,
            )
        }
    };
    let verifier = Verifier {
        signers,
        name: mode == "verify-full" || get("sslrootcert") == Some("system"),
        provider: provider.clone(),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(wrong)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let own = |given: Option<&str>, name: &str| given.map(PathBuf::from).or_else(|| at_home(name));
    let pair = own(get("sslcert"), "postgresql.crt").zip(own(get("sslkey"), "postgresql.key"));
    let config = match pair {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let key = PrivateKeyDer::from_pem_file(&key)
                .map_err(|error| Failure::Usage(format!("{}: {error}", key.display())))?;
            let chain = certificates(&certificate)?;
            builder.with_client_auth_cert(chain, key).map_err(wrong)?
        }
    };
    Ok(MakeRustlsConnect::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    read.map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))
}

fn add(roots: &mut RootCertStore, path: &Path) -> Result<(), Failure> {
    for certificate in certificates(path)? {
        let added = roots.add(certificate);
        added.map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))?;
    }
    Ok(())
}
