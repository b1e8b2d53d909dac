//! The temporary directory that a server lives in.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

/// The directory of the server's programs.
pub fn programs() -> &'static Path {
    static PROGRAMS: OnceLock<PathBuf> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        PathBuf::from(std::env::var_os("STATE_CACHE_BIN").expect(
            "STATE_CACHE_BIN must name the programs of a server with the extension: run make crash",
        ))
    })
}

/// A command that runs as the user that owns the servers, without the caller's own PG* settings.
pub fn as_server_user(program: &Path) -> Command {
    let mut command = match std::fs::metadata("/proc/self") {
        // The owner of this directory is the effective user.
        Ok(process) if std::os::unix::fs::MetadataExt::uid(&process) == 0 => {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(program);
            command
        }
        _ => Command::new(program),
    };
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PG") {
            command.env_remove(name);
        }
    }
    // With it, error messages of the extension would carry backtraces.
    command.env_remove("RUST_BACKTRACE").stdin(Stdio::null());
    command
}

/// Runs a command to its end, and panics with what it said if it failed.
pub fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// A directory that goes, and the server in it with it, when this value or this process ends.
///
/// A shell waits for the end of its input, which comes whatever ends the process, and then cleans up.
pub struct Home {
    path: PathBuf,
    keeper: Child,
}

impl Home {
    /// Makes the directory.
    pub fn new() -> Self {
        let parent = std::env::var("TMPDIR")
            .ok()
            // The path of a socket has at most 107 bytes.
            .filter(|parent| parent.len() <= 60)
            .unwrap_or_else(|| "/tmp".into());
        let path = succeed(
            as_server_user(Path::new("mktemp"))
                .args(["-d", &format!("{parent}/state_cache_test.XXXXXX")]),
        );
        let path = PathBuf::from(path.trim_end());
        let keeper = Command::new("sh")
            .args(["-c", KEEP, "keeper"])
            .arg(&path)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        Self { path, keeper }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// SIGQUIT is an immediate shutdown; a postmaster that does not heed it is killed.
const KEEP: &str = r#"
trap '' INT TERM HUP
read -r _
if read -r pid 2>/dev/null <"$1/data/postmaster.pid"; then
	kill -CONT "$pid" 2>/dev/null
	kill -QUIT "$pid" 2>/dev/null
	tries=0
	while kill -0 "$pid" 2>/dev/null && [ $tries -lt 200 ]; do
		sleep 0.05
		tries=$((tries + 1))
	done
	kill -KILL "$pid" 2>/dev/null
fi
rm -rf "$1"
"#;

impl Drop for Home {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}
