//! The grammar of `transport_url`.
//!
//! ```text
//! driver://[user:pass@]host[:port][,[user:pass@]host[:port]…]/[vhost][?option=value&…]
//! ```
//! Error texts name the part, never the text of a part: it may hold a password.

use super::Broker;
use datastore_api::Secret;
use percent_encoding::percent_decode_str;

const DEFAULT_PORT: u16 = 5672;

/// A parsed `transport_url`.
#[derive(Debug, Clone)]
pub struct TransportUrl {
    /// Brokers in the order written; `guest:guest@localhost:5672` when none is.
    pub brokers: Vec<Broker>,
    /// Virtual host.
    pub vhost: String,
    /// Options of the query, decoded; a key that repeats has its values joined by `,`. Whoever reads the configuration
    /// knows which are allowed: each overrides the option of that name in `[oslo_messaging_rabbit]`.
    pub options: Vec<(String, String)>,
}

/// What is wrong with a `transport_url`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// No `://`.
    #[error("transport_url has no driver (rabbit://…)")]
    NoDriver,
    /// A driver other than RabbitMQ's.
    #[error("transport_url names the driver {0}, only rabbit is supported")]
    Driver(String),
    /// A host part is empty or malformed. Counted from 1.
    #[error("host {0} of transport_url is malformed")]
    Host(usize),
    /// A port is not a number from 1 to 65535. Counted from 1.
    #[error("the port of host {0} of transport_url is not a number from 1 to 65535")]
    Port(usize),
    /// Percent-encoding that is not UTF-8.
    #[error("{0} of transport_url is not UTF-8 when decoded")]
    Encoding(&'static str),
    /// The virtual host is longer than AMQP allows.
    #[error("the virtual host of transport_url is longer than 255 bytes")]
    VhostLength,
    /// A query part without `=`.
    #[error("option {0} of transport_url's query has no value")]
    Option(usize),
}

/// Parses a `transport_url`.
pub fn parse(url: &str) -> Result<TransportUrl, UrlError> {
    let (driver, rest) = url.trim().split_once("://").ok_or(UrlError::NoDriver)?;
    let driver = driver.split('+').next().unwrap_or_default();
    if !["rabbit", "kombu", "amqp"].contains(&driver) {
        let safe = driver.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        return Err(UrlError::Driver(if safe { driver.to_owned() } else { "(unreadable)".into() }));
    }
    let (rest, query) = split_at(rest, '?');
    let (hosts, path) = split_at(rest, '/');
    let mut brokers = Vec::new();
    if hosts.is_empty() {
        brokers.push(Broker {
            host: "localhost".into(),
            port: DEFAULT_PORT,
            user: "guest".into(),
            password: Secret::from("guest".to_owned()),
        });
    } else {
        for (at, host) in hosts.split(',').enumerate() {
            brokers.push(broker(host, at + 1)?);
        }
    }
    let vhost = decode(path.unwrap_or_default(), "the virtual host")?;
    let vhost = if vhost.is_empty() { "/".to_owned() } else { vhost };
    if vhost.len() > 255 {
        return Err(UrlError::VhostLength);
    }
    Ok(TransportUrl {
        brokers,
        vhost,
        options: options(query.unwrap_or_default())?,
    })
}

fn split_at(text: &str, mark: char) -> (&str, Option<&str>) {
    match text.split_once(mark) {
        Some((before, after)) => (before, Some(after)),
        None => (text, None),
    }
}

fn decode(text: &str, part: &'static str) -> Result<String, UrlError> {
    let decoded = percent_decode_str(text).decode_utf8().map_err(|_| UrlError::Encoding(part))?;
    Ok(decoded.into_owned())
}

fn broker(text: &str, number: usize) -> Result<Broker, UrlError> {
    let (info, address) = match text.rsplit_once('@') {
        Some((info, address)) => (info, address),
        None => ("", text),
    };
    let (user, password) = info.split_once(':').unwrap_or((info, ""));
    let (host, port) = if let Some(rest) = address.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or(UrlError::Host(number))?;
        if host.parse::<std::net::Ipv6Addr>().is_err() {
            return Err(UrlError::Host(number));
        }
        match after {
            "" => (host, None),
            _ => (host, Some(after.strip_prefix(':').ok_or(UrlError::Host(number))?)),
        }
    } else {
        match address.split_once(':') {
            Some((_, port)) if port.contains(':') => return Err(UrlError::Host(number)),
            Some((host, port)) => (host, Some(port)),
            None => (address, None),
        }
    };
    let odd = |c: char| c.is_whitespace() || c.is_control() || "/?#[]@%".contains(c);
    if host.is_empty() || host.contains(odd) {
        return Err(UrlError::Host(number));
    }
    let port = match port {
        None | Some("") => DEFAULT_PORT,
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => match digits.parse::<u16>() {
            Ok(port) if port > 0 => port,
            _ => return Err(UrlError::Port(number)),
        },
        Some(_) => return Err(UrlError::Port(number)),
    };
    Ok(Broker {
        host: host.to_owned(),
        port,
        user: decode(user, "a user name")?,
        password: Secret::from(decode(password, "a password")?),
    })
}

fn options(query: &str) -> Result<Vec<(String, String)>, UrlError> {
    let mut found: Vec<(String, String)> = Vec::new();
    for (at, part) in query.split('&').filter(|part| !part.is_empty()).enumerate() {
        let (key, value) = part.split_once('=').ok_or(UrlError::Option(at + 1))?;
        let plus = |text: &str| decode(&text.replace('+', " "), "the query");
        let (key, value) = (plus(key)?, plus(value)?);
        match found.iter_mut().find(|(known, _)| *known == key) {
            Some((_, joined)) => {
                joined.push(',');
                joined.push_str(&value);
            }
            None => found.push((key, value)),
        }
    }
    Ok(found)
}

#[cfg(test)]
#[path = "url_tests.rs"]
mod tests;
