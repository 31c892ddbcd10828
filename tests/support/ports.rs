//! Ports that answer, and what becomes of who asks them.

use std::io::ErrorKind;
use std::net::{Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

/// What becomes of a connection. One to an address of one's own comes from that address.
pub(crate) fn tcp(to: &str) -> Option<ErrorKind> {
    let patience = Duration::from_millis(300);
    let connected = TcpStream::connect_timeout(&to.parse().unwrap(), patience);
    connected.err().map(|error| error.kind())
}

/// What becomes of a packet to a port on which an echo waits.
pub(crate) fn udp(to: &str) -> Option<ErrorKind> {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    socket.connect(to).unwrap();
    let answer = socket.send(b"x").and_then(|_| socket.recv(&mut [0; 1]));
    answer.err().map(|error| error.kind())
}

/// Answers on `port` until the test ends.
pub(crate) fn listen(port: u16) -> TcpListener {
    let echo = UdpSocket::bind(("0.0.0.0", port)).unwrap();
    std::thread::spawn(move || {
        let mut byte = [0; 1];
        while let Ok((_, peer)) = echo.recv_from(&mut byte) {
            // What a rule keeps from going out is what is asked about.
            echo.send_to(&byte, peer).ok();
        }
    });
    TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap()
}
