//! Carries the Gateway API's CRDs into `api/src/kinds/gateway/crds`, without their descriptions.
//!
//! In: the folder `config/crd` of the module sigs.k8s.io/gateway-api (Apache-2.0), got by
//! `go mod download -json sigs.k8s.io/gateway-api@v1.6.1`. Out: one JSON file a kind. Run from the repository's root:
//! `cargo run -p atoll-api --example gateway_crds -- FOLDER`.

use std::error::Error;
use std::path::Path;

use serde_json::Value;

const TO: &str = "api/src/kinds/gateway/crds";

fn main() -> Result<(), Box<dyn Error>> {
    let from = std::env::args().nth(1).ok_or("which folder? (…/gateway-api@v1.6.1/config/crd)")?;
    for channel in ["standard", "experimental"] {
        carry(&Path::new(&from).join(channel), &Path::new(TO).join(channel))?;
    }
    Ok(())
}

fn carry(from: &Path, to: &Path) -> Result<(), Box<dyn Error>> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let path = entry?.path();
        let yaml = std::fs::read_to_string(&path)?;
        for document in yaml.split("\n---\n") {
            let mut crd: Value = serde_saphyr::from_str(document)?;
            if crd["spec"]["group"] != "gateway.networking.k8s.io" {
                continue;
            }
            let plural = crd["spec"]["names"]["plural"].as_str().ok_or("a CRD without a plural")?.to_owned();
            strip(&mut crd);
            let mut json = serde_json::to_string(&crd)?;
            json.push('\n');
            std::fs::write(to.join(format!("{plural}.json")), json)?;
        }
    }
    Ok(())
}

/// Removes descriptions: texts under that key. A property that is called so holds a schema and stays.
fn strip(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|k, v| !(k == "description" && v.is_string()));
            map.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}
