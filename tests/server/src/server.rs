//! A PostgreSQL server that belongs to one test.

use crate::home::{Home, as_server_user, programs, succeed};
use crate::{Sql, eventually};
use postgres::{Client, Config, NoTls};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Every server listens on this port, each in a directory of its own.
const PORT: u16 = 5432;

/// The line that a server logs when it is up, also after it recovered from the crash of a backend.
const READY: &str = "database system is ready to accept connections";

/// How a server writes rows: `auto`, without a statement where that is the same, or `statement`, by one, as where
/// users have put something on the tables. What tests promise holds for both, so each server draws one of them, which
/// costs no second run. What was drawn stands in the output of a test that fails; `STATE_CACHE_TEST_WRITE_ROWS` says
/// it instead.
fn way_of_writing() -> String {
    const WAYS: [&str; 2] = ["auto", "statement"];
    let drawn =
        || WAYS[RandomState::new().build_hasher().finish() as usize % WAYS.len()].to_owned();
    std::env::var("STATE_CACHE_TEST_WRITE_ROWS").unwrap_or_else(|_| drawn())
}

/// A server of one's own. It is stopped and removed when dropped.
pub struct Server {
    home: Home,
}

impl Server {
    /// A server with the library preloaded and the extension in database `postgres`.
    /// `settings` are lines of its configuration. How it writes rows is drawn, see [`way_of_writing`].
    pub fn new(settings: &[&str]) -> Self {
        let way = format!("state_cache.test_write_rows = '{}'", way_of_writing());
        println!("{way}");
        let own = ["shared_preload_libraries = 'state_cache'", &way];
        let server = Self::without_extension(&[&own, settings].concat());
        server.connect().run("CREATE EXTENSION state_cache");
        server
    }

    /// A server as `initdb` makes it, nothing preloaded.
    pub fn without_extension(settings: &[&str]) -> Self {
        let server = Self { home: Home::new() };
        // One initdb for all: it takes longer than most tests.
        succeed(
            as_server_user(Path::new("cp"))
                .arg("-a")
                .arg(template())
                .arg(server.data()),
        );
        server.configure(&[&["fsync = off"], settings].concat());
        server.start();
        server
    }

    /// A standby that streams from this server and has caught up with what is there now.
    pub fn standby(&self) -> Self {
        let standby = Self { home: Home::new() };
        succeed(
            self.program("pg_basebackup")
                .arg("--write-recovery-conf")
                .arg("--checkpoint=fast")
                .arg("--pgdata")
                .arg(standby.data()),
        );
        standby.configure(&[]);
        standby.start();
        standby.catch_up_with(self);
        standby
    }

    /// Copies the data directory as it is, under a name; the server is stopped, or was killed.
    pub fn copy_data(&self, name: &str) {
        succeed(
            as_server_user(Path::new("cp"))
                .arg("-a")
                .arg(self.data())
                .arg(self.home.path().join(name)),
        );
    }

    /// Takes a base backup of the running server, to be put back as it is.
    pub fn back_up_data(&self, name: &str) {
        succeed(
            self.program("pg_basebackup")
                .arg("--checkpoint=fast")
                .arg("--pgdata")
                .arg(self.home.path().join(name)),
        );
    }

    /// Puts a copy of the data directory in place of what is there; the server is stopped.
    pub fn put_back(&self, name: &str) {
        succeed(as_server_user(Path::new("rm")).arg("-rf").arg(self.data()));
        succeed(
            as_server_user(Path::new("cp"))
                .arg("-a")
                .arg(self.home.path().join(name))
                .arg(self.data()),
        );
    }

    /// Waits until this standby has replayed what `primary` has written, or, being a standby itself, has replayed.
    pub fn catch_up_with(&self, primary: &Self) {
        let target = primary.connect().text(
            "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                ELSE pg_current_wal_insert_lsn() END",
        );
        let mut client = self.connect();
        eventually("the standby to catch up", || {
            client.flag(&format!("SELECT pg_last_wal_replay_lsn() >= '{target}'"))
        });
    }

    /// Ends the stream of WAL that this standby receives: it gets nothing more from its primary.
    pub fn stop_following(&self) {
        let mut client = self.connect();
        client.run("ALTER SYSTEM SET primary_conninfo = ''");
        client.run("SELECT pg_reload_conf()");
        eventually("the end of streaming", || {
            client.number("SELECT count(*) FROM pg_stat_wal_receiver") == 0
        });
    }

    /// Makes this standby a primary, and waits until it is one.
    pub fn promote(&self) {
        let mut client = self.connect();
        assert!(client.flag("SELECT pg_promote()"));
        eventually("the promotion", || {
            !client.flag("SELECT pg_is_in_recovery()")
        });
    }

    /// Lets this server, which is stopped, recover from the archive when it starts, to the point that its
    /// configuration names.
    pub fn recover_at_start(&self) {
        succeed(as_server_user(Path::new("touch")).arg(self.data().join("recovery.signal")));
    }

    /// Takes out of this server, which is stopped, all that it has written since `primary` was promoted, and makes it
    /// a standby of that.
    pub fn rewind_to(&self, primary: &Self) {
        succeed(
            self.program("pg_rewind")
                .arg("--target-pgdata")
                .arg(self.data())
                .arg(format!("--source-server={}", primary.parameters()))
                .arg("--write-recovery-conf"),
        );
        // The configuration came from there too.
        self.configure(&[]);
    }

    /// Appends to the configuration; the last line for a setting counts.
    pub fn configure(&self, settings: &[&str]) {
        use std::io::Write;
        let mut file = std::fs::OpenOptions::new()
            .append(true)
            .open(self.data().join("postgresql.conf"))
            .unwrap();
        writeln!(
            file,
            "listen_addresses = ''\nport = {PORT}\nunix_socket_directories = '{}'",
            self.home.path().display()
        )
        .unwrap();
        for line in settings {
            writeln!(file, "{line}").unwrap();
        }
    }

    /// Starts it and waits until it accepts connections. After a crash of the postmaster that may have to
    /// wait for the last of its children to go.
    pub fn start(&self) {
        let log = self.home.path().join("log");
        eventually("the server to start", || {
            let mut command = as_server_user(&programs().join("pg_ctl"));
            command.current_dir(self.home.path());
            command
                .arg("--pgdata")
                .arg(self.data())
                .arg("--log")
                .arg(&log)
                .args(["--wait", "--silent", "start"]);
            // What pg_ctl says is in the log too; the pipe of `output` would stay open in the server.
            command
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null());
            let started = command.status().unwrap().success();
            let still_there = || {
                self.log().contains("is still in use")
                    || self.log().contains("Is another postmaster")
            };
            assert!(
                started || still_there(),
                "the server does not start:\n{}",
                self.log()
            );
            started
        });
    }

    /// Stops it as an administrator would.
    pub fn stop(&self) {
        self.stop_in_mode("fast");
    }

    /// Stops it; `mode` is one of `pg_ctl`'s.
    pub fn stop_in_mode(&self, mode: &str) {
        succeed(
            self.program("pg_ctl")
                .arg("--pgdata")
                .arg(self.data())
                .args(["--wait", "stop"])
                .arg(format!("--mode={mode}")),
        );
    }

    /// Whether a file is in the data directory.
    pub fn has_file(&self, name: &str) -> bool {
        self.data().join(name).exists()
    }

    /// Kills the postmaster as a crash would; the backends go when they notice.
    pub fn kill_postmaster(&self) {
        kill(self.postmaster());
    }

    /// Kills the postmaster and all its children, as the loss of the machine would.
    pub fn kill_everything(&self) {
        let postmaster = self.postmaster();
        // Stopped, it can start no more of them.
        signal("STOP", postmaster);
        let children = children_of(postmaster);
        let all: Vec<String> = std::iter::once(postmaster)
            .chain(children)
            .map(|pid| pid.to_string())
            .collect();
        // One that has ended by itself meanwhile is no error.
        let _ = Command::new("sh")
            .args(["-c", &format!("kill -KILL {} 2>/dev/null", all.join(" "))])
            .status();
    }

    /// Fills a block of a table's file with zeros, as a write that the disk has lost; the server is stopped. `file`
    /// is what `pg_relation_filepath` gives.
    pub fn lose_block(&self, file: &str, block: u64) {
        use std::io::{Seek, SeekFrom, Write};
        let path = self.data().join(file);
        let mut file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        file.seek(SeekFrom::Start(block * 8192)).unwrap();
        file.write_all(&[0; 8192]).unwrap();
    }

    fn postmaster(&self) -> u32 {
        let pid = std::fs::read_to_string(self.data().join("postmaster.pid")).unwrap();
        pid.lines().next().unwrap().trim().parse().unwrap()
    }

    /// How often it has come up so far, to be given to [`Server::await_recovery`].
    pub fn times_up(&self) -> usize {
        self.log().matches(READY).count()
    }

    /// Waits until it has recovered from the crash of a backend: until it came up once more than
    /// `times_up`.
    pub fn await_recovery(&self, times_up: usize) {
        eventually("the server to recover", || {
            self.times_up() > times_up && self.try_connect("postgres").is_ok()
        });
    }

    /// A session in database `postgres`.
    pub fn connect(&self) -> Client {
        self.connect_to("postgres")
    }

    /// A session in another database.
    pub fn connect_to(&self, database: &str) -> Client {
        self.try_connect(database)
            .unwrap_or_else(|error| panic!("no connection: {error}\n{}", self.log()))
    }

    /// A session, unless the server is down.
    pub fn try_connect(&self, database: &str) -> Result<Client, postgres::Error> {
        Config::new()
            .host_path(self.home.path())
            .port(PORT)
            .user("postgres")
            .dbname(database)
            .connect(NoTls)
    }

    /// How to connect to database `postgres`, for what makes its connections itself.
    pub fn parameters(&self) -> String {
        format!(
            "host={} port={PORT} user=postgres dbname=postgres",
            self.home.path().display()
        )
    }

    /// One of the server's programs, to be run as the server's user, with the environment that leads it
    /// to this server.
    pub fn program(&self, name: &str) -> Command {
        let mut command = as_server_user(&programs().join(name));
        command.current_dir(self.home.path());
        command
            .env("PGHOST", self.home.path())
            .env("PGPORT", PORT.to_string())
            .env("PGUSER", "postgres");
        command
    }

    /// Runs one of the server's programs to its end, and gives its output.
    pub fn run_program(&self, name: &str, arguments: &[&str]) -> String {
        succeed(self.program(name).args(arguments))
    }

    /// The directory of its socket, which programs take for a host name.
    pub fn host(&self) -> &Path {
        self.home.path()
    }

    /// All that it has logged.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.home.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!(
                "the end of the server's log:\n{}",
                lines[lines.len().saturating_sub(30)..].join("\n")
            );
        }
    }
}

/// The processes whose parent is `parent`.
fn children_of(parent: u32) -> Vec<u32> {
    let is_child = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name in parentheses may hold anything; the parent is the second field after it.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        fields.split_whitespace().nth(1) == Some(&parent.to_string())
    };
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
        .filter(is_child)
        .collect()
}

/// `kill -9`.
pub fn kill(pid: u32) {
    signal("KILL", pid);
}

fn signal(name: &str, pid: u32) {
    succeed(Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]));
}

/// A process that is stopped until this is dropped, also when its test fails: its server could not end without it.
pub struct Stopped(u32);

impl Stopped {
    /// Stops it.
    pub fn new(pid: u32) -> Self {
        signal("STOP", pid);
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        signal("CONT", self.0);
    }
}

/// Lets a process of a server take so many bytes of address space beyond what it has.
pub fn limit_memory(pid: u32, more: u64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let size = status.lines().find(|line| line.starts_with("VmSize:"));
    let kb = size.and_then(|line| line.split_whitespace().nth(1));
    let most = kb.unwrap().parse::<u64>().unwrap() * 1024 + more;
    succeed(
        as_server_user(Path::new("prlimit"))
            .args(["--pid", &pid.to_string()])
            .arg(format!("--as={most}")),
    );
}

/// A data directory that no server has run in, to be copied.
fn template() -> PathBuf {
    static TEMPLATE: OnceLock<Home> = OnceLock::new();
    let home = TEMPLATE.get_or_init(|| {
        let home = Home::new();
        let mut initdb = as_server_user(&programs().join("initdb"));
        initdb
            .current_dir(home.path())
            .arg("--pgdata")
            .arg(home.path().join("data"));
        initdb.args([
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--no-locale",
            "--no-sync",
        ]);
        succeed(&mut initdb);
        home
    });
    home.path().join("data")
}
