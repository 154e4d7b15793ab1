//! The signer's process.

use std::fs::File;
use std::io::Read;
use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;

use anyhow::Context;

use crate::net::sys;
use crate::secret::process;
use crate::tls::ca::Ca;
use crate::tls::signer::Signer;

/// Serves the proxy on `socket` with the CA that is read from `keys`, once:
/// certificate and key, each in PEM.
pub fn run(socket: RawFd, keys: RawFd) -> anyhow::Result<()> {
    process::close_to_others().context("closing the process to others")?;
    if let Err(error) = process::never_swapped() {
        tracing::warn!(%error, "the CA's key may be swapped to disk: raise LimitMEMLOCK of the service");
    }
    let mut pem = zeroize::Zeroizing::new(String::new());
    File::from(sys::inherited(keys)?).read_to_string(&mut pem).context("the loader passed no CA")?;
    let end = "-----END CERTIFICATE-----\n";
    let split = pem.find(end).map(|at| at + end.len()).context("the loader passed no certificate")?;
    let ca = Ca::from_pem(pem[..split].to_owned(), pem[split..].to_owned())?;
    drop(pem);
    let signer = Signer::new(&ca)?;
    signer.serve(UnixStream::from(sys::inherited(socket)?))?;
    Ok(())
}
