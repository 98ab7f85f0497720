//! The built-in plugins as a program: whatever name it is started under is the plugin that it is. For tests of the exec
//! protocol, and to put our plugins under another runtime.

fn main() {
    let name = std::env::args().next().unwrap_or_default();
    std::process::exit(cni::exec::main(name.rsplit('/').next().unwrap_or_default()));
}
