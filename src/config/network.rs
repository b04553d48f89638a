//! `eth1.json`: the data network as the control plane describes it (contract section 4.5).

use serde_json::{Map, Value};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The data network of the instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataNetwork {
    /// Hardware address of the NIC, six bytes in lower-case hex.
    pub mac_address: String,
    /// IPv4, if the port has it.
    pub ipv4: Option<Addressing>,
    /// IPv6, if the port has it.
    pub ipv6: Option<Addressing>,
}

impl DataNetwork {
    /// The address a source reports as its own: IPv4, else IPv6.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.ipv4.as_ref().or(self.ipv6.as_ref()).map(|family| family.address)
    }
}

/// One family of addresses of the port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addressing {
    /// Our address.
    pub address: IpAddr,
    /// Length of the network's prefix in bits.
    pub prefix: u8,
    /// Gateway of the network.
    pub gateway: Option<IpAddr>,
    /// Routes of the subnet.
    pub routes: Vec<Route>,
}

/// A route of the subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Destination network.
    pub destination: IpAddr,
    /// Length of its prefix in bits.
    pub prefix: u8,
    /// Next hop.
    pub nexthop: IpAddr,
}

/// What a field should have been, by its name. All of them, not only the first.
pub(super) type FieldErrors = Vec<(String, &'static str)>;

/// Reads the text of the file.
///
/// # Errors
/// Every wrong field, or one without a field's name if this is not JSON.
pub(super) fn parse(text: &str) -> Result<DataNetwork, FieldErrors> {
    let Ok(Value::Object(object)) = serde_json::from_str(text) else {
        return Err(vec![(String::new(), "expected a JSON object")]);
    };
    let mut errors = FieldErrors::new();
    let mac_address = match object.get("mac_address").and_then(Value::as_str).filter(|mac| is_mac(mac)) {
        Some(mac) => mac.to_lowercase(),
        None => {
            errors.push(("mac_address".to_owned(), "expected six bytes in hex, as in fa:16:3e:11:22:33"));
            String::new()
        }
    };
    let ipv4 = family(&object, "ipv4", &mut errors);
    let ipv6 = family(&object, "ipv6", &mut errors);
    if ipv4.is_none() && ipv6.is_none() && errors.is_empty() {
        errors.push(("ipv4_address".to_owned(), "expected an address of one family at least"));
    }
    if errors.is_empty() {
        Ok(DataNetwork { mac_address, ipv4, ipv6 })
    } else {
        Err(errors)
    }
}

fn is_mac(text: &str) -> bool {
    let parts: Vec<&str> = text.split(':').collect();
    parts.len() == 6
        && parts
            .iter()
            .all(|part| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Reads a field; one that is absent or null is `None`, one that is wrong is reported.
fn field<T>(
    object: &Map<String, Value>,
    name: String,
    expected: &'static str,
    errors: &mut FieldErrors,
    read: impl Fn(&str) -> Option<T>,
) -> Option<T> {
    let value = object.get(&name).filter(|value| !value.is_null())?;
    let read = value.as_str().and_then(read);
    if read.is_none() {
        errors.push((name, expected));
    }
    read
}

fn family(object: &Map<String, Value>, family: &str, errors: &mut FieldErrors) -> Option<Addressing> {
    let is_v4 = family == "ipv4";
    let ip = |text: &str| text.parse::<IpAddr>().ok().filter(|ip| ip.is_ipv4() == is_v4);
    let network = |text: &str| {
        let (address, prefix) = text.split_once('/')?;
        let prefix = prefix
            .parse::<u8>()
            .ok()
            .filter(|prefix| *prefix <= if is_v4 { 32 } else { 128 })?;
        Some((ip(address)?, prefix))
    };
    let (wants_ip, wants_network) = if is_v4 {
        ("expected an IPv4 address", "expected an IPv4 network, as in 10.1.2.0/24")
    } else {
        ("expected an IPv6 address", "expected an IPv6 network, as in fd00::/64")
    };
    let before = errors.len();
    let address = field(object, format!("{family}_address"), wants_ip, errors, ip);
    let cidr = field(object, format!("{family}_cidr"), wants_network, errors, network);
    let gateway = field(object, format!("{family}_gateway"), wants_ip, errors, ip);
    let mut routes = Vec::new();
    let name = format!("{family}_host_routes");
    match object.get(&name) {
        None | Some(Value::Null) => {}
        Some(Value::Array(items)) => {
            for (at, item) in items.iter().enumerate() {
                let empty = Map::new();
                let item = item.as_object().unwrap_or(&empty);
                let destination = item.get("destination").and_then(Value::as_str).and_then(network);
                let nexthop = item.get("nexthop").and_then(Value::as_str).and_then(ip);
                match (destination, nexthop) {
                    (Some((destination, prefix)), Some(nexthop)) => routes.push(Route {
                        destination,
                        prefix,
                        nexthop,
                    }),
                    (None, _) => errors.push((format!("{name}[{at}].destination"), wants_network)),
                    (_, None) => errors.push((format!("{name}[{at}].nexthop"), wants_ip)),
                }
            }
        }
        Some(_) => errors.push((name, "expected a list of routes")),
    }
    let (Some(address), Some((net, prefix))) = (address, cidr) else {
        if errors.len() == before && address.is_some() != cidr.is_some() {
            let missing = if address.is_some() { "cidr" } else { "address" };
            errors.push((format!("{family}_{missing}"), "expected both the address and the network"));
        }
        return None;
    };
    if masked(address, prefix) != masked(net, prefix) {
        errors.push((
            format!("{family}_address"),
            "expected an address inside the network of the same file",
        ));
        return None;
    }
    Some(Addressing {
        address,
        prefix,
        gateway,
        routes,
    })
}

/// The network an address lies in.
fn masked(ip: IpAddr, prefix: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits() & u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)).into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = r#"{"mac_address": "fa:16:3E:11:22:33", "ipv4_address": "10.1.2.7", "ipv4_cidr": "10.1.2.0/24",
        "ipv4_gateway": "10.1.2.1", "ipv4_host_routes": [{"destination": "10.9.0.0/16", "nexthop": "10.1.2.254"}],
        "ipv6_address": "fd00::7", "ipv6_cidr": "fd00::/64", "ipv6_host_routes": [], "ipv6_gateway": "fd00::1", "other": 1}"#;

    fn names(text: &str) -> Vec<String> {
        parse(text).unwrap_err().into_iter().map(|error| error.0).collect()
    }

    #[test]
    fn the_whole_file_is_read() {
        let network = parse(FULL).unwrap();
        assert_eq!(network.mac_address, "fa:16:3e:11:22:33");
        assert_eq!(network.address().unwrap().to_string(), "10.1.2.7");
        assert_eq!(network.ipv4.unwrap().routes[0].prefix, 16);
        assert_eq!(network.ipv6.unwrap().prefix, 64);
    }

    #[test]
    fn every_wrong_field_is_named() {
        let text = FULL
            .replace("10.1.2.254", "x")
            .replace("10.1.2.1\"", "10.1.2\"")
            .replace("fa:16", "fa16")
            .replace("/64", "/129");
        assert_eq!(
            names(&text),
            ["mac_address", "ipv4_gateway", "ipv4_host_routes[0].nexthop", "ipv6_cidr"]
        );
        assert_eq!(names("[]"), [""]);
        assert_eq!(names(r#"{"mac_address": "fa:16:3e:11:22:33"}"#), ["ipv4_address"]);
        assert_eq!(names(&FULL.replace("10.1.2.0/24", "10.1.3.0/24")), ["ipv4_address"]);
        assert_eq!(
            names(r#"{"mac_address": "fa:16:3e:11:22:33", "ipv6_address": "fd00::1"}"#),
            ["ipv6_cidr"]
        );
        assert_eq!(
            names(r#"{"mac_address": 1, "ipv4_address": [], "ipv4_host_routes": {}}"#).len(),
            3
        );
    }

    #[test]
    fn a_prefix_of_0_takes_every_address() {
        assert!(parse(&FULL.replace("10.1.2.0/24", "0.0.0.0/0").replace("fd00::/64", "::/0")).is_ok());
    }
}
