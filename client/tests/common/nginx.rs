//! A real nginx for one test, with an access log of its own.

use super::{eventually, parent_command};
use loadgen_core::sys::process;
use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

/// An nginx with one worker; stopped with its worker when dropped.
pub(crate) struct Process {
    pub(crate) master: Child,
    pub(crate) address: SocketAddr,
    root: PathBuf,
}

impl Process {
    /// Runs in the folder `root`, and answers at a free port. `log`: a line of the access log; `http`: what else the
    /// configuration has of HTTP, by that address.
    pub(crate) fn start(root: &Path, log: &str, http: impl Fn(SocketAddr) -> String) -> Self {
        // Between this and nginx's own bind somebody else may take it; then nginx does not start, and says so.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = root.join("nginx.conf");
        std::fs::write(&config, configuration(root, log, &http(address))).unwrap();
        let mut command = parent_command("nginx");
        command.env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()));
        command.arg("-p").arg(root).arg("-c").arg(&config).arg("-e").arg(root.join("error.log"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(root.join("stderr")).unwrap());
        let nginx = Self { master: command.spawn().unwrap(), address, root: root.to_owned() };
        eventually("nginx answers", || TcpStream::connect(address).is_ok());
        nginx
    }

    /// The access log, as far as it is written.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.root.join("access.log")).unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SIGTERM, so that the master takes its worker along.
        let _ = process::terminate(&self.master);
        for _ in 0..500 {
            if let Ok(Some(_)) = self.master.try_wait() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.master.kill();
        let _ = self.master.wait();
    }
}

fn configuration(root: &Path, log: &str, http: &str) -> String {
    // Only root may choose whom the worker runs as, and only then is there need: the folder is ours alone.
    let user = if std::fs::metadata(root).unwrap().uid() == 0 { "user root root;" } else { "" };
    let root = root.display();
    format!(
        r#"{user}
daemon off;
worker_processes 1;
pid {root}/nginx.pid;
events {{ worker_connections 1000; }}
http {{
    log_format judge "{log}";
    access_log {root}/access.log judge;
    client_body_temp_path {root}/body;
    proxy_temp_path {root}/proxy;
    fastcgi_temp_path {root}/fastcgi;
    uwsgi_temp_path {root}/uwsgi;
    scgi_temp_path {root}/scgi;
    keepalive_requests 100000000;
{http}
}}
"#
    )
}
