//! Certificates of HAProxy's frontends, put in the place of those that it has loaded while it runs.
//!
//! In: certificates with their keys. Out: `set ssl cert` and `commit ssl cert`; what it does not take is refused by the field that names it.

use std::collections::BTreeSet;
use std::io;

use atoll_api::provider::{Certificate, Push, Refused};
use sha2::{Digest as _, Sha256};

use super::Haproxy;

impl Haproxy {
    /// Certificates in the place of those that it has; each once for a process.
    pub(super) async fn certificates(&mut self, push: &Push, refused: &mut Vec<Refused>) -> io::Result<()> {
        if push.certificates.is_empty() {
            return Ok(());
        }
        let held = self.ask("show ssl cert").await?;
        let held: BTreeSet<&str> = held.lines().map(|line| line.trim_start_matches('*').trim()).collect();
        for certificate in &push.certificates {
            let file = file(&self.told.certificates, certificate);
            let mut refuse = |message: String| {
                refused.push(Refused { owner: certificate.owner.clone(), field: certificate.field.clone(), message });
            };
            if !held.contains(file.as_str()) {
                refuse(format!(
                    "HAProxy has loaded no certificate `{file}`: put one there that its frontend names, which is replaced"
                ));
                continue;
            }
            let pem = format!("{}\n{}", certificate.chain.trim(), certificate.key.trim());
            let mark: [u8; 32] = Sha256::digest(pem.as_bytes()).into();
            if self.given.get(&file) == Some(&mark) {
                continue;
            }
            // An empty line ends the payload.
            let pem: String =
                pem.lines().filter(|line| !line.trim().is_empty()).map(|line| format!("{line}\n")).collect();
            let set = self.ask(&format!("set ssl cert {file} <<\n{pem}")).await?;
            let done = if set.contains("Transaction created") || set.contains("Transaction updated") {
                self.ask(&format!("commit ssl cert {file}")).await?
            } else {
                set
            };
            if done.contains("Success!") {
                self.given.insert(file, mark);
            } else {
                let _ = self.ask(&format!("abort ssl cert {file}")).await?;
                refuse(format!("HAProxy does not take it: {}", done.trim().replace('\n', " ")));
            }
        }
        Ok(())
    }
}

fn file(directory: &str, certificate: &Certificate) -> String {
    format!("{}/{}.pem", directory.trim_end_matches('/'), certificate.name.replace('/', "_"))
}
