//! Prints what is generated from the types:
//! `cargo run -p ortolan-crds --example generate` the CustomResourceDefinitions as YAML, with `-- reference` the
//! API reference as Markdown.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    match std::env::args().nth(1).as_deref() {
        Some("reference") => print!("{}", ortolan_crds::reference()),
        Some(other) => {
            return Err(format!("{other:?} is not known: write reference, or nothing").into());
        }
        None => {
            for crd in ortolan_crds::all() {
                print!("{}", ortolan_crds::to_yaml(&crd)?);
            }
        }
    }
    Ok(())
}
