//! From a name to a TCP connection, over addresses that were checked.

use std::net::{IpAddr, SocketAddr};

use tokio::net::TcpStream;

use crate::policy::AddressRules;

use super::Shared;
use super::error::ProxyError;
use super::resolve;

/// Where to, and for whom.
#[derive(Debug, Clone, Copy)]
pub struct Dial<'a> {
    pub tag: u64,
    pub host: &'a str,
    pub port: u16,
    pub addresses: &'a AddressRules,
    /// The address that the client chose. It is preferred if the name resolves
    /// to it here, too, and counts for nothing otherwise.
    pub original: IpAddr,
}

/// Resolves, checks every address, and connects to the first that answers.
pub async fn dial(shared: &Shared, dial: Dial<'_>) -> Result<TcpStream, ProxyError> {
    let addresses = addresses(shared, dial).await?;
    let mut last = ProxyError::ConnectTimeout;
    for address in addresses.into_iter().take(shared.limits.connect_attempts) {
        let connect = TcpStream::connect(SocketAddr::new(address, dial.port));
        match tokio::time::timeout(shared.limits.connect_timeout(), connect).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true).map_err(|error| ProxyError::Connect { address, error })?;
                return Ok(stream);
            }
            Ok(Err(error)) => last = ProxyError::Connect { address, error },
            Err(_) => last = ProxyError::ConnectTimeout,
        }
    }
    Err(last)
}

async fn addresses(shared: &Shared, dial: Dial<'_>) -> Result<Vec<IpAddr>, ProxyError> {
    let literal = dial.host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let found = match literal {
        Ok(address) => vec![address],
        Err(_) => shared.resolver.resolve(dial.tag, dial.host).await?,
    };
    let mut good = Vec::with_capacity(found.len());
    let mut refused = None;
    for address in found {
        let own = || shared.own.iter().find(|(own, _)| resolve::leads_to(*own, address, dial.port));
        let checked = resolve::check(address, dial.addresses);
        match checked.and_then(|()| own().map_or(Ok(()), |(_, why)| Err(*why))) {
            Ok(()) if address == dial.original => good.insert(0, address),
            Ok(()) => good.push(address),
            Err(why) => refused = Some(ProxyError::Address { address, why }),
        }
    }
    match refused {
        Some(error) if good.is_empty() => Err(error),
        _ if good.is_empty() => Err(resolve::ResolveError::NotFound.into()),
        _ => Ok(good),
    }
}
