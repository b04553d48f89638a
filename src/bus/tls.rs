//! TLS towards the broker: trusted certificates, a client certificate, host names.

use super::{BusError, TlsSettings};
use lapin::tcp::RustlsConnector;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::path::Path;
use std::sync::{Arc, Once};
use tracing::warn;

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Reads the files and makes a connector. Done for each connection, so that renewed certificates are taken.
pub async fn connector(settings: TlsSettings) -> Result<RustlsConnector, BusError> {
    let made = tokio::task::spawn_blocking(move || config(&settings)).await;
    let config = made.map_err(|e| failed("set up TLS".into(), e.into()))??;
    Ok(RustlsConnector::from(config))
}

fn failed(doing: String, source: Cause) -> BusError {
    BusError::Amqp { doing, source }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, BusError> {
    let read = || -> Result<Vec<_>, Cause> {
        let found = CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>()?;
        if found.is_empty() {
            Err("it holds no certificate".into())
        } else {
            Ok(found)
        }
    };
    read().map_err(|source| failed(format!("read certificates from {}", path.display()), source))
}

fn config(settings: &TlsSettings) -> Result<ClientConfig, BusError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match &settings.ca_file {
        Some(path) => {
            let doing = || format!("use the certificates of {}", path.display());
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|e| failed(doing(), e.into()))?;
            }
            let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()
                .map_err(|e| failed(doing(), e.into()))?;
            if settings.verify_hostname {
                inner
            } else {
                Arc::new(Lenient {
                    provider: provider.clone(),
                    chain: Some(inner),
                })
            }
        }
        None => {
            static WARNED: Once = Once::new();
            WARNED.call_once(|| warn!("the broker's certificate is not checked: ssl_ca_file is not set"));
            Arc::new(Lenient {
                provider: provider.clone(),
                chain: None,
            })
        }
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| failed("set up TLS".into(), e.into()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    match (&settings.cert_file, &settings.key_file) {
        (Some(cert), key) => {
            // Without a key file the key is in the certificate's file, as for upstream.
            let key = key.as_ref().unwrap_or(cert);
            let doing = |path: &Path| format!("read the private key from {}", path.display());
            let private = PrivateKeyDer::from_pem_file(key).map_err(|e| failed(doing(key), e.into()))?;
            builder
                .with_client_auth_cert(certificates(cert)?, private)
                .map_err(|e| failed(format!("use the certificate {}", cert.display()), e.into()))
        }
        (None, Some(_)) => Err(BusError::Message("ssl_key_file is set, ssl_cert_file is not".into())),
        (None, None) => Ok(builder.with_no_client_auth()),
    }
}

/// Checks less than the default; the handshake's signatures are always checked, so the peer holds the key of the certificate it shows.
#[derive(Debug)]
struct Lenient {
    provider: Arc<CryptoProvider>,
    /// Checks the chain, but not the name; without it any certificate is taken.
    chain: Option<Arc<WebPkiServerVerifier>>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        cert: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        use CertificateError::{NotValidForName, NotValidForNameContext};
        let Some(inner) = &self.chain else {
            return Ok(ServerCertVerified::assertion());
        };
        match inner.verify_server_cert(cert, chain, name, ocsp, now) {
            Err(rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. })) => {
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
