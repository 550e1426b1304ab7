//! Compiles the .proto files without protoc (protox), at build time.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = protox::compile(["proto/atoll.proto"], ["proto"])?;
    tonic_prost_build::configure().bytes(".atoll.v1").compile_fds(files)?;
    Ok(())
}
