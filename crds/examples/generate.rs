//! Prints the CustomResourceDefinitions as YAML: `cargo run -p ortolan-crds --example generate`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for crd in ortolan_crds::all() {
        print!("{}", ortolan_crds::to_yaml(&crd)?);
    }
    Ok(())
}
