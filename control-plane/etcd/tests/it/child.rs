//! A server in a process of its own, which tests may kill or trace: this test binary, told by its environment to be
//! one.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use etcd::daemon::{Config, Daemon};
use tokio_util::sync::CancellationToken;

const DIRECTORY: &str = "ETCD_TEST_CHILD_DIRECTORY";
/// The disk isn't waited for.
pub const NO_FSYNC: &str = "ETCD_TEST_CHILD_NO_FSYNC";
const MARK: &str = "listening on ";

/// Not a test: the server itself, when the environment asks for it.
#[test]
fn server() {
    let Some(dir) = std::env::var_os(DIRECTORY) else { return };
    // A tracer that is killed leaves the traced running: the end of standard input ends it all the same.
    std::thread::spawn(|| {
        let _ = std::io::stdin().lines().last();
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    runtime.block_on(async {
        let urls = vec!["http://127.0.0.1:0".to_owned()];
        let unsafe_no_fsync = std::env::var_os(NO_FSYNC).is_some();
        let config = Config { data_dir: dir.into(), listen_client_urls: urls, unsafe_no_fsync, ..Config::default() };
        let daemon = Daemon::start(config).await.expect("start");
        println!("{MARK}{}", daemon.urls()[0]);
        daemon.serve(CancellationToken::new()).await;
    });
}

/// A running child; killed when dropped.
pub struct Running {
    child: Child,
    pub url: String,
}

impl Running {
    /// Starts a server on `dir`, under `wrapper` (a program and its arguments) when that is not empty.
    pub fn start(dir: &Path, wrapper: &[&str]) -> Option<Running> {
        Running::start_with(dir, wrapper, None)
    }

    /// The same, with this variable in its environment.
    pub fn start_with(dir: &Path, wrapper: &[&str], variable: Option<&str>) -> Option<Running> {
        let exe = std::env::current_exe().expect("this test");
        let mut command = match wrapper {
            [] => Command::new(exe),
            [program, arguments @ ..] => {
                let mut command = Command::new(program);
                command.args(arguments).arg(exe);
                command
            }
        };
        command.args(["child::server", "--exact", "--nocapture"]).env(DIRECTORY, dir);
        command.envs(variable.map(|name| (name, "1")));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?;
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let url = lines.map_while(Result::ok).find_map(|l| Some(l.split_once(MARK)?.1.to_owned()));
        match url {
            Some(url) => Some(Running { child, url }),
            None => {
                let _ = child.kill();
                let _ = child.wait();
                None
            }
        }
    }

    /// Ends it as a crash does.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}
