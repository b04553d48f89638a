//! The options of pairs and service addresses.

use super::network::DataNetwork;
use super::reader::Reader;
use super::schema::OWN;
use super::settings::{DataInterface, PairSettings};
use crate::pair::Plane;
use crate::vip::{Address, Vip, in_network};

/// Longest name of a NIC, bytes.
const LONGEST_NAME: usize = 15;

pub(super) fn build(reader: &mut Reader<'_>, network: Option<&DataNetwork>) -> PairSettings {
    let data = interface(reader, "data_interface");
    let management_interface = interface(reader, "management_interface");
    if data.is_some() && data == management_interface {
        reader.warning(OWN, "management_interface", "is the NIC of the data network too");
    }
    let by_mac = || network.map(|network| DataInterface::Mac(network.mac_address.clone()));
    let data_interface = data.map(DataInterface::Named).or_else(by_mac);
    let vip = vip(reader, network);
    if !vip.is_empty() && data_interface.is_none() {
        reader.error(OWN, "vip", "needs data_interface, or a network_file that describes the NIC");
    }
    PairSettings {
        data_interface,
        management_interface,
        link_port: reader.count(OWN, "link_port"),
        vip,
        plane: match reader.text(OWN, "vip_plane").as_deref() {
            Some("keepalived") => Plane::Keepalived,
            _ => Plane::Arp,
        },
        keepalived_program: reader.path(OWN, "keepalived_program").unwrap_or_default(),
    }
}

fn interface(reader: &mut Reader<'_>, option: &str) -> Option<String> {
    let name = reader.text(OWN, option)?;
    // What the kernel takes as a name.
    let fits = name.len() <= LONGEST_NAME && name != "." && name != "..";
    if fits && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control()) {
        return Some(name);
    }
    let text = format!("expected the name of a NIC (at most {LONGEST_NAME} bytes, no '/', ':' or blank), found {name:?}");
    reader.error(OWN, option, text);
    None
}

/// Every address is judged, so that all that is wrong is told at once.
fn vip(reader: &mut Reader<'_>, network: Option<&DataNetwork>) -> Vec<String> {
    let mut addresses: Vec<Address> = Vec::new();
    for text in reader.list(OWN, "vip").unwrap_or_default() {
        match text.parse() {
            Ok(address) => addresses.push(address),
            Err(problem) => reader.error(OWN, "vip", problem.to_string()),
        }
    }
    for address in network.map(|network| outside(&addresses, network)).unwrap_or_default() {
        reader.error(OWN, "vip", address);
    }
    if addresses.is_empty() {
        return Vec::new();
    }
    match Vip::new(addresses) {
        Ok(vip) => vip.addresses().iter().map(Address::to_string).collect(),
        Err(problem) => {
            reader.error(OWN, "vip", problem.to_string());
            Vec::new()
        }
    }
}

/// Addresses that clients of this data network cannot reach, or that are the guest's own.
fn outside(addresses: &[Address], network: &DataNetwork) -> Vec<String> {
    let families = [&network.ipv4, &network.ipv6];
    let of = |address: &Address| {
        let mut same = families.iter().filter_map(|family| family.as_ref());
        let Some(family) = same.find(|family| family.address.is_ipv4() == address.ip().is_ipv4()) else {
            return Some(format!(
                "{address} is of a family that the data network of network_file has not"
            ));
        };
        if family.address == address.ip() {
            return Some(format!("{address} is this guest's own address on the data network"));
        }
        let network = (family.address, family.prefix);
        (!in_network(address.ip(), network.0, network.1)).then(|| {
            format!(
                "{address} is outside the data network of network_file ({}/{})",
                network.0, network.1
            )
        })
    };
    addresses.iter().filter_map(of).collect()
}
