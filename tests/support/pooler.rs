//! A pooler in transaction mode before a PostgreSQL of a test.

use super::{
    extras,
    login::free_address,
    postgres::{Cluster, command_of_nobody, own},
};
use std::{
    env, fs,
    net::{SocketAddr, TcpStream},
    process::Child,
    thread,
    time::Duration,
};
use tempfile::TempDir;

/// Ends with the value, or with the thread that started it.
pub struct Pooler {
    server: Child,
    directory: TempDir,
    address: SocketAddr,
}

impl Pooler {
    /// A pooler on a port of loopback; none if the calling test is to be left out.
    pub fn start(cluster: &Cluster) -> Option<Self> {
        if !extras::required("pgbouncer") {
            return None;
        }
        let (directory, address) = (tempfile::tempdir().expect("a directory"), free_address());
        let settings = format!(
            "[databases]\npostgres = host={} user=adsproxy\n[pgbouncer]\nlisten_addr = {}\n\
             listen_port = {}\nunix_socket_dir =\nauth_type = any\npool_mode = transaction\n\
             max_client_conn = 200\ndefault_pool_size = 8\nserver_login_retry = 1\nlogfile = {}\n",
            cluster.directory.display(),
            address.ip(),
            address.port(),
            directory.path().join("log").display(),
        );
        let file = directory.path().join("pgbouncer.ini");
        fs::write(&file, settings).expect("written");
        // That user may not enter every directory that programs are in.
        let path = env::var_os("PATH").unwrap_or_default();
        let mut found = env::split_paths(&path).map(|it| it.join("pgbouncer"));
        let found = found.find(|program| program.is_file()).expect("it is required");
        let program = directory.path().join("pgbouncer");
        fs::copy(found, &program).expect("copied");
        own(directory.path());
        let mut command = command_of_nobody();
        let server = command.arg(program).arg("-q").arg(&file).spawn();
        let pooler = Self { server: server.expect("setpriv starts"), directory, address };
        for _ in 0..1200 {
            if TcpStream::connect(address).is_ok() {
                return Some(pooler);
            }
            thread::sleep(Duration::from_millis(50));
        }
        let log = fs::read_to_string(pooler.directory.path().join("log"));
        panic!("{}", log.unwrap_or_default());
    }

    pub fn url(&self) -> String {
        format!("postgres://adsproxy@{}/postgres", self.address)
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
