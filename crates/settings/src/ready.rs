use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

/// Writes what others wait for: where the program listens, and its process id. Whole, by a rename.
///
/// # Errors
/// When it cannot be written; the text names the path.
pub fn write_ready_file(path: &Path, listen: SocketAddr, admin: SocketAddr) -> io::Result<()> {
    let pid = std::process::id();
    let text = format!("{{\"listen\":\"{listen}\",\"admin\":\"{admin}\",\"pid\":{pid}}}\n");
    let mut beside = OsString::from(path);
    beside.push(format!(".{pid}"));
    let written = std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, path));
    written.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}
