//! Clients that sign what they ask (RFC 8945), by another implementation than the server's: hickory's.
//!
//! In: a message, the options of a step (`key=`, `skew=SECONDS`, `mac=broken|short`). Out: octets, and what becomes of the replies' signatures.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hickory_proto::op::Message;
use hickory_proto::rr::rdata::tsig::{TsigAlgorithm, TsigError};
use hickory_proto::rr::{Name, TSigVerifier, TSigner};

use crate::script::Step;
use crate::wording::absolute;

/// RFC 8945 §10: recommended.
const FUDGE: u16 = 300;

/// Keys by the name that a scenario calls them.
pub(crate) type Keys = HashMap<String, TSigner>;

/// `key NAME SECRET [ALGORITHM] [as=NAME]`: `as` is what it is called on the wire.
pub(crate) fn key(step: &Step) -> Result<(String, TSigner), String> {
    // A secret may end in `=`, so that it looks like an option.
    let [_, name, secret, rest @ ..] = step.words.as_slice() else {
        return Err("key NAME SECRET [ALGORITHM]".to_owned());
    };
    let algorithm = rest.iter().map(String::as_str).find(|word| !word.starts_with("as=")).unwrap_or("hmac-sha256");
    let algorithm = match algorithm {
        "hmac-sha256" => TsigAlgorithm::HmacSha256,
        "hmac-sha384" => TsigAlgorithm::HmacSha384,
        "hmac-sha512" => TsigAlgorithm::HmacSha512,
        other => return Err(format!("no algorithm `{other}`")),
    };
    let secret = STANDARD.decode(secret).map_err(|e| e.to_string())?;
    let wire = Name::from_ascii(step.option("as").unwrap_or(name)).map_err(|e| e.to_string())?;
    let signer = TSigner::new(secret, algorithm, absolute(wire), FUDGE).map_err(|e| e.to_string())?;
    Ok((name.clone(), signer))
}

/// What was sent, and what its replies' signatures go on from.
pub(crate) struct Sent {
    pub(crate) octets: Vec<u8>,
    verifier: Option<TSigVerifier>,
}

/// `message` as the step has it signed.
pub(crate) fn sent(step: &Step, keys: &Keys, mut message: Message) -> Result<Sent, String> {
    let Some(name) = step.option("key") else {
        return Ok(Sent { octets: message.to_vec().map_err(|e| e.to_string())?, verifier: None });
    };
    let signer = keys.get(name).ok_or_else(|| format!("no key `{name}`"))?;
    let skew: i64 = step.option("skew").map_or(Ok(0), str::parse).map_err(|_| "skew=SECONDS".to_owned())?;
    let now = jiff::Timestamp::now().as_second() + skew;
    let (mut record, verifier) = signer.sign_message(&message, now as u64).map_err(|e| e.to_string())?;
    match step.option("mac") {
        None => {}
        Some("broken") => record.data.mac[0] ^= 1,
        Some("short") => record.data.mac.truncate(16),
        Some(other) => return Err(format!("no way to spoil a MAC is called `{other}`")),
    }
    message.set_signature(record);
    Ok(Sent { octets: message.to_vec().map_err(|e| e.to_string())?, verifier })
}

impl Sent {
    /// What a reply's signature is: `none`, `ok`, the error in it, or that it is wrong.
    pub(crate) fn judge(&mut self, reply: &[u8]) -> String {
        let Ok(message) = Message::from_vec(reply) else { return "no message".to_owned() };
        let Some(signature) = message.signature() else { return "none".to_owned() };
        if let Some(error) = signature.data.error {
            let word = match error {
                TsigError::BadSig => "BADSIG",
                TsigError::BadKey => "BADKEY",
                TsigError::BadTime => "BADTIME",
                TsigError::BadTrunc => "BADTRUNC",
                TsigError::Unknown(_) => "unknown",
            };
            return word.to_owned();
        }
        match self.verifier.as_mut().map(|verifier| verifier.verify(reply)) {
            Some(Ok(_)) => "ok".to_owned(),
            Some(Err(why)) => format!("wrong: {why}"),
            None => "unasked".to_owned(),
        }
    }
}
