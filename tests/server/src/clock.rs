//! A host whose clock is wrong.

use crate::home::succeed;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// The clock of the day of the programs that are given it. The clock that only goes forward stays as it is.
pub struct Clock {
    library: PathBuf,
    seconds: i64,
}

/// A library that stands before the C library's: what asks for the time of the day gets another one. It is compiled
/// by the compiler that links all of this.
const LIBRARY: &str = r#"
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long wrong_by(void)
{
	const char *seconds = getenv("STATE_CACHE_TEST_CLOCK");
	return seconds ? atol(seconds) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
	int status = syscall(SYS_clock_gettime, clock, now);
	if (status == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
		now->tv_sec += wrong_by();
	return status;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
	struct timespec precise;
	(void) zone;
	clock_gettime(CLOCK_REALTIME, &precise);
	now->tv_sec = precise.tv_sec;
	now->tv_usec = precise.tv_nsec / 1000;
	return 0;
}

time_t time(time_t *at)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	if (at)
		*at = now.tv_sec;
	return now.tv_sec;
}
"#;

impl Clock {
    /// A clock that is so many seconds ahead, or behind.
    pub fn wrong_by(seconds: i64) -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("state_cache_clock.{}.{number}", std::process::id());
        let library = std::env::temp_dir().join(format!("{name}.so"));
        let source = library.with_extension("c");
        std::fs::write(&source, LIBRARY).unwrap();
        succeed(
            Command::new("cc")
                .args(["-shared", "-fPIC", "-o"])
                .args([&library, &source]),
        );
        std::fs::remove_file(source).unwrap();
        Self { library, seconds }
    }

    /// Lets a command run by this clock.
    pub fn set(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", &self.library)
            .env("STATE_CACHE_TEST_CLOCK", self.seconds.to_string());
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.library);
    }
}
