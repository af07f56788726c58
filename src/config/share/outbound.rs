//! A link to a VMess outbound in JSON, and back.

use super::link::{Link, packet_encoding};
use super::{ShareError, stream};
use serde_json::{Map, Value, json};

/// The outbound's tag if the link has no remark.
const TAG: &str = "proxy";

/// Makes the outbound.
pub(super) fn from_link(link: &Link) -> Value {
    let mut user = Map::new();
    user.insert("id".to_owned(), link.id.clone().into());
    user.insert("alterId".to_owned(), link.alter_id.into());
    user.insert("security".to_owned(), link.security.clone().into());
    let mut outbound = Map::new();
    let tag = if link.remark.is_empty() { TAG } else { &link.remark };
    outbound.insert("tag".to_owned(), tag.into());
    outbound.insert("protocol".to_owned(), "vmess".into());
    let server = json!({ "address": link.address, "port": link.port, "users": [user] });
    let mut settings = json!({ "vnext": [server] });
    if !link.packet_encoding.is_empty() {
        settings["packetEncoding"] = link.packet_encoding.as_str().into();
    }
    outbound.insert("settings".to_owned(), settings);
    if let Some(stream) = stream::to_json(link) {
        outbound.insert("streamSettings".to_owned(), stream);
    }
    outbound.into()
}

/// Reads the first VMess outbound of a config: its first server and that one's first user.
///
/// # Errors
/// [`ShareError::NoOutbound`] with the path of what is missing or wrong.
pub(super) fn to_link(config: &Value) -> Result<Link, ShareError> {
    let (path, outbound) = find(config)
        .ok_or(ShareError::NoOutbound { path: "outbounds".to_owned(), text: "there is no vmess outbound" })?;
    let fail = |member: &str, text| ShareError::NoOutbound { path: format!("{path}.{member}"), text };
    let server = &outbound["settings"]["vnext"][0];
    if !server.is_object() {
        return Err(fail("settings.vnext[0]", "the vmess outbound has no server"));
    }
    let user = &server["users"][0];
    let user_path = "settings.vnext[0].users[0]";
    let text = |value: &Value| value.as_str().unwrap_or_default().trim().to_owned();
    let address = text(&server["address"]);
    if address.is_empty() {
        return Err(fail("settings.vnext[0].address", "the server has no address"));
    }
    let port = server["port"].as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
    let port = port.ok_or_else(|| fail("settings.vnext[0].port", "the server's port is not valid"))?;
    let id = text(&user["id"]);
    if id.is_empty() {
        return Err(fail(&format!("{user_path}.id"), "the user has no id"));
    }
    let alter_id = if user["alterId"].is_null() { Some(0) } else { user["alterId"].as_u64() };
    let alter_id = alter_id.and_then(|number| u16::try_from(number).ok());
    let alter_id =
        alter_id.ok_or_else(|| fail(&format!("{user_path}.alterId"), "the alterId is not valid"))?;
    let (network, transport_security, tls) = stream::from_json(&outbound["streamSettings"]);
    Ok(Link {
        remark: text(&outbound["tag"]),
        address: address.trim_start_matches('[').trim_end_matches(']').to_owned(),
        port,
        id,
        alter_id,
        security: text(&user["security"]).to_ascii_lowercase(),
        packet_encoding: packet_encoding(&text(&outbound["settings"]["packetEncoding"])),
        network,
        transport_security,
        tls,
    })
}

/// The first VMess outbound and its path, in V2Ray's order: the old keys come first.
pub(super) fn find(config: &Value) -> Option<(String, &Value)> {
    let list = |key: &'static str| {
        let entries = config[key].as_array().into_iter().flatten().enumerate();
        entries.map(move |(index, outbound)| (format!("{key}[{index}]"), outbound))
    };
    std::iter::once(("outbound".to_owned(), &config["outbound"]))
        .chain(list("outboundDetour"))
        .chain(list("outbounds"))
        .find(|(_, outbound)| {
            outbound["protocol"].as_str().is_some_and(|name| name.eq_ignore_ascii_case("vmess"))
        })
}
