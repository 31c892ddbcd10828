//! When fail2ban's clients are answered, and where: by the process in charge, where the configuration says.

use std::path::PathBuf;

use super::host::InCharge;
use super::socket::Socket;
use crate::config::Backend;
use crate::control::Host;

/// Answers while this is the process in charge.
#[derive(Debug)]
pub struct Answering {
    host: Host,
    socket: Option<(PathBuf, Socket)>,
}

impl Answering {
    /// Nobody is answered before the first [`look`](Self::look).
    #[must_use]
    pub fn new(host: Host) -> Self {
        Self { host, socket: None }
    }

    /// Looks whether that is as it should be; to be called now and then.
    pub fn look(&mut self) {
        let config = self.host.config();
        let wanted = match config.firewall.backend {
            // What is only tried is nothing that other programs should be told of.
            Backend::DryRun => None,
            Backend::Auto | Backend::Ipset | Backend::Nftables => {
                self.host.paths().fail2ban_socket(&config)
            }
        };
        let wanted = wanted.filter(|_| self.host.in_charge());
        if self.socket.as_ref().map(|(path, _)| path) == wanted.as_ref() {
            return;
        }
        self.socket = None;
        if let Some(path) = wanted {
            let server = InCharge::new(self.host.clone());
            self.socket = Socket::start(path.clone(), Box::new(server))
                .inspect_err(|error| {
                    log::error!("cannot start a thread: {error}; fail2ban-client is not answered");
                })
                .ok()
                .map(|socket| (path, socket));
        }
    }
}
