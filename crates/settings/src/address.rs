use std::net::{Ipv4Addr, SocketAddr};

/// Reads an address to listen on: `IP:PORT`, or `localhost:PORT`, which is 127.0.0.1. Other names would have to be looked
/// up, and may change.
///
/// # Errors
/// What an address is.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    let local = text.strip_prefix("localhost:").and_then(|port| port.parse().ok());
    local
        .map(|port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        .or_else(|| text.parse().ok())
        .ok_or_else(|| "is an address such as 127.0.0.1:7070, localhost:7070 or [::1]:7070".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn localhost_is_an_address_and_other_names_are_not() {
        for (text, is) in [
            ("127.0.0.1:0", Some("127.0.0.1:0")),
            ("localhost:7070", Some("127.0.0.1:7070")),
            ("[::1]:7070", Some("[::1]:7070")),
            ("localhost", None),
            ("localhost:70700", None),
            ("7070", None),
            (":7070", None),
            ("example.org:7070", None),
        ] {
            assert_eq!(address(text).ok().map(|at| at.to_string()).as_deref(), is, "{text}");
        }
    }
}
