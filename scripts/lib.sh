# shellcheck shell=bash
# What the scripts beside this file share: which PostgreSQL, where its relocated copy stands, and a
# throwaway server that runs from it. Sourced, never run.

set -euo pipefail

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
TARGET=${CARGO_TARGET_DIR:-$TOP/target}
SUPPORTED_VERSIONS="18 17 16 15"
# The server refuses to run as root; root runs it as this user, which the packages create.
SERVER_USER=postgres

die() {
	printf '%s: %s\n' "${0##*/}" "$*" >&2
	exit 1
}

# A user's own PGHOST, PGSERVICE, PGOPTIONS … must not lead a test to another server.
forget_connection_settings() {
	local name
	for name in "${!PG@}"; do
		case $name in
			PG_CONFIG | PGRX_*) ;;
			*) unset "$name" ;;
		esac
	done
}

# Major version a pg_config belongs to.
major_version() {
	local text
	text=$("$1" --version 2>/dev/null) || return 1
	text=${text#PostgreSQL }
	printf '%s\n' "${text%%[!0-9]*}"
}

# Whether a pg_config leads to a supported server with its headers and test drivers.
usable_pg_config() {
	local major regress
	major=$(major_version "$1") || return 1
	[[ " $SUPPORTED_VERSIONS " == *" $major "* ]] || return 1
	regress=$(dirname "$("$1" --pgxs)")/../test/regress/pg_regress
	[[ -f $("$1" --includedir-server)/postgres.h && -x $("$1" --bindir)/initdb && -x $regress ]]
}

# Prints the pg_config to use: PG_CONFIG if set, else the one on PATH, else the newest package.
find_pg_config() {
	if [[ -n ${PG_CONFIG:-} ]]; then
		usable_pg_config "$PG_CONFIG" || return 1
		command -v "$PG_CONFIG"
		return
	fi
	local candidate version
	if candidate=$(command -v pg_config) && usable_pg_config "$candidate"; then
		printf '%s\n' "$candidate"
		return
	fi
	for version in $SUPPORTED_VERSIONS; do
		candidate=/usr/lib/postgresql/$version/bin/pg_config
		if usable_pg_config "$candidate"; then
			printf '%s\n' "$candidate"
			return
		fi
	done
	return 1
}

# Sets PG_CONFIG, PG_MAJOR and PG_TESTS, and tells pgrx which server to build for.
choose_postgres() {
	local through=${PG_CONFIG:+ through PG_CONFIG=$PG_CONFIG}
	PG_CONFIG=$(find_pg_config) || die "no PostgreSQL 15 to 18 with its headers found$through; run scripts/setup"
	PG_MAJOR=$(major_version "$PG_CONFIG")
	PG_TESTS=$(dirname "$("$PG_CONFIG" --pgxs)")/../test
	export PG_CONFIG PGRX_PG_CONFIG_PATH=$PG_CONFIG
}

# rustup puts cargo where a shell that is no login shell does not look.
find_cargo() {
	command -v cargo >/dev/null && return
	PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
	export PATH
	command -v cargo >/dev/null || die "cargo not found; install Rust as https://rustup.rs says"
}

# Prints a browser that shows nothing on a screen: the smallest one that is here.
find_chromium() {
	command -v chromium-headless-shell || command -v chromium || command -v google-chrome
}

# Runs a command as who builds. Under sudo that is the user who called it: cargo is installed for that user, and
# target/ stays that user's.
as_builder() {
	if [[ $EUID -eq 0 && -n ${SUDO_USER:-} && $SUDO_USER != root ]]; then
		local home
		home=$(getent passwd "$SUDO_USER" | cut -d: -f6)
		runuser -u "$SUDO_USER" -- env HOME="$home" "$@"
	else
		"$@"
	fi
}

# Sets INSTALLED: pairs of a file that belongs to an installed extension and the place where the server looks for it.
list_installed() {
	local libdir extensions file
	libdir=$("$PG_CONFIG" --pkglibdir)
	extensions=$("$PG_CONFIG" --sharedir)/extension
	INSTALLED=(
		"$(tree_of release)$libdir/state_cache.so" "$libdir/state_cache.so"
		"$TOP/state_cache.control" "$extensions/state_cache.control"
	)
	for file in "$TOP"/sql/*.sql; do
		INSTALLED+=("$file" "$extensions/${file##*/}")
	done
}

# Runs a command that changes a directory: as it is where it may, else through sudo. $1: the directory.
with_right_to() {
	local directory=$1
	shift
	printf '%s\n' "$*"
	if [[ $EUID -eq 0 || -n ${DESTDIR:-} || -w $directory ]]; then
		"$@"
	else
		sudo "$@"
	fi
}

# Where the relocated server of a flavour stands. $1: release or fault_injection.
tree_of() {
	printf '%s/pg%s-%s\n' "$TARGET" "$PG_MAJOR" "$1"
}

# Runs a command as the user that owns the server.
as_server_user() {
	if [[ $EUID -eq 0 ]]; then
		runuser -u "$SERVER_USER" -- env -u RUST_BACKTRACE "$@"
	else
		env -u RUST_BACKTRACE "$@"
	fi
}

# Sets WORK, a private directory that end_work removes: data directory, socket, log.
begin_work() {
	local parent=${TMPDIR:-/tmp}
	# The path of a Unix socket has at most 107 bytes.
	[[ ${#parent} -le 60 ]] || parent=/tmp
	if [[ $EUID -eq 0 ]]; then
		id "$SERVER_USER" >/dev/null 2>&1 || die "root needs the user $SERVER_USER to run a server; run scripts/setup"
	fi
	WORK=$(mktemp -d "$parent/state_cache.XXXXXX")
	if [[ $EUID -eq 0 ]]; then
		chown "$SERVER_USER": "$WORK"
	fi
}

# Sets BIN, the programs of a flavour's server. Where the server's user cannot reach the checkout (root's
# home, say), the tree is copied to WORK.
choose_tree() {
	local tree bin
	tree=$(tree_of "$1")
	bin=$tree$("$PG_CONFIG" --bindir)
	[[ -x $bin/postgres ]] || die "$tree is not built; run make build"
	if ! (cd / && as_server_user test -x "$bin/postgres"); then
		cp -a "$tree" "$WORK/tree"
		bin=$WORK/tree$("$PG_CONFIG" --bindir)
	fi
	BIN=$bin
}

# Makes a cluster in WORK and starts it, reachable through WORK only. Arguments: configuration lines.
start_server() {
	(
		cd "$WORK"
		as_server_user "$BIN/initdb" --pgdata="$WORK/data" --username=postgres --auth=trust \
			--encoding=UTF8 --no-locale --no-sync --no-instructions >"$WORK/initdb.log" 2>&1 ||
			{ cat "$WORK/initdb.log" >&2; die "initdb failed"; }
		{
			printf '%s\n' \
				"listen_addresses = ''" \
				"unix_socket_directories = '$WORK'" \
				"port = 5432" \
				"max_prepared_transactions = 8" \
				"log_line_prefix = '%m [%p] '" \
				"$@"
		} | as_server_user tee -a "$WORK/data/postgresql.conf" >/dev/null
		as_server_user "$BIN/pg_ctl" --pgdata="$WORK/data" --log="$WORK/log" --wait --timeout=120 start \
			>"$WORK/pg_ctl.log" 2>&1 ||
			{ cat "$WORK/pg_ctl.log" "$WORK/log" >&2; die "the server did not start"; }
	)
	export PGHOST=$WORK PGPORT=5432 PGUSER=postgres
}

# Stops the server, if there is one, and removes WORK. Never fails: it runs on the way out.
end_work() {
	[[ -n ${WORK:-} && -d $WORK ]] || return 0
	if [[ -f $WORK/data/postmaster.pid ]]; then
		(cd "$WORK" && as_server_user "$BIN/pg_ctl" --pgdata="$WORK/data" --mode=immediate --wait stop) \
			>/dev/null 2>&1 || true
	fi
	rm -rf "$WORK"
}

# Makes sure that end_work runs, whatever ends the script.
end_work_on_exit() {
	trap end_work EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP
}

# Runs a command so that a signal to this script ends it and all that it started.
run_command() {
	local status=0 child
	if [[ -t 0 ]]; then
		# At a terminal the command must stay in the foreground; the terminal sends it SIGINT itself.
		trap : INT
		"$@" || status=$?
	else
		set -m
		"$@" &
		child=$!
		set +m
		trap 'kill -TERM -- -$child 2>/dev/null; wait $child; exit 143' INT TERM HUP
		wait $child || status=$?
	fi
	end_work_on_exit
	return $status
}

# The release that is being worked on: what CREATE EXTENSION installs.
current_version() {
	sed -n "s/^default_version = '\(.*\)'$/\1/p" "$TOP/state_cache.control"
}

# The script that CREATE EXTENSION runs: its parts by subject, in the order of their names, an empty line between
# two of them.
assembled_script() {
	local part first=yes
	for part in "$TOP"/sql/parts/*.sql; do
		[[ -n $first ]] || printf '\n'
		first=
		cat "$part"
	done
}

# The blocks of SQL of a page, from a heading on ("" for all) to the next of its level, but for those that say that
# they are not to be run.
blocks() {
	awk -v heading="$2" '
		BEGIN { inside = heading == "" }
		heading != "" && /^## / && !block { inside = $0 == "## " heading }
		/^<!-- not run:/ { skip = 1 }
		block && /^```$/ { block = 0; print ""; next }
		!block && /^```/ { if ($0 == "```sql" && inside && !skip) block = 1; if ($0 == "```sql") skip = 0; next }
		block { print }' "$1"
}

# The errors that a page shows.
errors_shown() {
	sed -n 's/^\(ERROR:  .*\)/\1/p' "$1" | sort
}

# Pastes the examples of a page into psql of BINDIR. An error that the page does not show fails, and one that does
# not come. $1: the page; $2: a heading in it, or nothing for all of it.
paste_page() {
	local page=$1 heading=$2 output
	printf '\n$ psql        # %s pasted\n' "$page${heading:+: $heading}"
	output=$(blocks "$page" "$heading" | "$BINDIR/psql" --no-psqlrc --echo-all 2>&1) || die "psql failed: $output"
	[[ -n $output ]] || die "$page has no examples"
	printf '%s\n' "$output"
	if [[ -z $heading ]]; then
		diff <(errors_shown "$page") <(sed -n 's/.*\(ERROR:  .*\)/\1/p' <<<"$output" | sort) ||
			die "the errors are not those that $page shows"
	elif grep 'ERROR: ' <<<"$output"; then
		die "an example of $page failed"
	fi
}
