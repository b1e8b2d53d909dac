//! Where to connect, found as libpq finds it.

use crate::failure::Failure;
use clap::Args;
use postgres::Config;
use postgres::config::{LoadBalanceHosts, SslMode, TargetSessionAttrs};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How to connect. Without these, the environment of libpq says: PGHOST, PGSERVICE, ...
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Connection")]
#[group(id = "connection_options")]
pub struct Options {
    /// Server, or directory of its socket
    #[arg(short = 'h', long, global = true, value_name = "HOST")]
    pub host: Option<String>,
    /// Port
    #[arg(short = 'p', long, global = true, value_name = "PORT")]
    pub port: Option<String>,
    /// Role
    #[arg(short = 'U', long, global = true, value_name = "ROLE")]
    pub username: Option<String>,
    /// Database, connection string or URI
    #[arg(short = 'd', long, global = true, value_name = "DBNAME")]
    pub dbname: Option<String>,
}

/// Parameters by the names that libpq has for them.
pub type Parameters = BTreeMap<String, String>;

/// The environment, and the parameter that each variable stands for.
const ENVIRONMENT: [(&str, &str); 17] = [
    ("PGHOST", "host"),
    ("PGHOSTADDR", "hostaddr"),
    ("PGPORT", "port"),
    ("PGDATABASE", "dbname"),
    ("PGUSER", "user"),
    ("PGPASSWORD", "password"),
    ("PGPASSFILE", "passfile"),
    ("PGSERVICE", "service"),
    ("PGOPTIONS", "options"),
    ("PGAPPNAME", "application_name"),
    ("PGSSLMODE", "sslmode"),
    ("PGSSLROOTCERT", "sslrootcert"),
    ("PGSSLCERT", "sslcert"),
    ("PGSSLKEY", "sslkey"),
    ("PGCONNECT_TIMEOUT", "connect_timeout"),
    ("PGTARGETSESSIONATTRS", "target_session_attrs"),
    ("PGLOADBALANCEHOSTS", "load_balance_hosts"),
];

/// Parameters that change nothing here: the encoding is always UTF-8, and there is no GSSAPI.
const IGNORED: [&str; 6] = [
    "client_encoding",
    "gssencmode",
    "krbsrvname",
    "gsslib",
    "fallback_application_name",
    "sslsni",
];

/// Collects the parameters.
pub fn collect(options: &Options) -> Result<Parameters, Failure> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let mut found = Parameters::new();
    if let Some(given) = &options.dbname {
        found = parse(given)?;
    }
    let flags = [
        ("host", &options.host),
        ("port", &options.port),
        ("user", &options.username),
    ];
    for (name, value) in flags {
        if let Some(value) = value {
            found.insert(name.to_owned(), value.clone());
        }
    }
    let service = found.get("service").cloned().or(variable("PGSERVICE"));
    if let Some(service) = service {
        for (name, value) in read_service(&service)? {
            found.entry(name).or_insert(value);
        }
    }
    for (from, name) in ENVIRONMENT {
        if let Some(value) = variable(from) {
            found.entry(name.to_owned()).or_insert(value);
        }
    }
    if !found.contains_key("host") && !found.contains_key("hostaddr") {
        // Debian's directory of sockets, then the one of PostgreSQL as it comes.
        let debian = Path::new("/var/run/postgresql");
        let host = if debian.is_dir() {
            "/var/run/postgresql"
        } else {
            "/tmp"
        };
        found.insert("host".to_owned(), host.to_owned());
    }
    if !found.contains_key("user")
        && let Some(user) = system_user()
    {
        found.insert("user".to_owned(), user);
    }
    if !found.contains_key("dbname")
        && let Some(user) = found.get("user").cloned()
    {
        found.insert("dbname".to_owned(), user);
    }
    if !found.contains_key("password")
        && let Some(password) = look_up_password(&found)
    {
        found.insert("password".to_owned(), password);
    }
    Ok(found)
}

/// The name of the user who runs this.
fn system_user() -> Option<String> {
    let uid = std::fs::metadata("/proc/self").ok()?.uid().to_string();
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    });
    named.or_else(|| std::env::var("USER").ok())
}

/// A file in the home directory.
fn at_home(name: &str) -> Option<PathBuf> {
    std::env::var_os("HOME").map(|home| PathBuf::from(home).join(name))
}

/// Parses the name of a database, a connection string, or a URI.
pub fn parse(given: &str) -> Result<Parameters, Failure> {
    let uri = ["postgresql://", "postgres://"];
    match uri.iter().find_map(|scheme| given.strip_prefix(scheme)) {
        Some(rest) => parse_uri(rest),
        None if given.contains('=') => parse_pairs(given),
        None => Ok(Parameters::from([("dbname".to_owned(), given.to_owned())])),
    }
}

/// `name = value name = 'va lue'`, with backslashes before quotes and backslashes.
fn parse_pairs(text: &str) -> Result<Parameters, Failure> {
    let wrong = |what: &str| Failure::Usage(format!("connection string: {what}"));
    let mut found = Parameters::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (name, after) = rest
            .split_once('=')
            .ok_or_else(|| wrong("a name without \"=\""))?;
        let mut characters = after.trim_start().chars();
        let mut value = String::new();
        let quoted = characters.as_str().starts_with('\'');
        if quoted {
            characters.next();
        }
        loop {
            match characters.next() {
                Some('\\') => value.extend(characters.next()),
                Some('\'') if quoted => break,
                Some(c) if !quoted && c.is_whitespace() => break,
                Some(c) => value.push(c),
                None if quoted => return Err(wrong("a quote does not end")),
                None => break,
            }
        }
        found.insert(name.trim().to_owned(), value);
        rest = characters.as_str().trim_start();
    }
    Ok(found)
}

/// What stands behind the scheme: `user:password@host:port,host/dbname?name=value`.
fn parse_uri(rest: &str) -> Result<Parameters, Failure> {
    let mut found = Parameters::new();
    let mut put = |name: &str, value: &str| -> Result<(), Failure> {
        if !value.is_empty() {
            found.insert(name.to_owned(), unescape(value)?);
        }
        Ok(())
    };
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    put("dbname", database)?;
    let hosts = match authority.rsplit_once('@') {
        None => authority,
        Some((who, hosts)) => {
            let (user, password) = who.split_once(':').unwrap_or((who, ""));
            put("user", user)?;
            put("password", password)?;
            hosts
        }
    };
    let (mut names, mut ports) = (Vec::new(), Vec::new());
    for host in hosts.split(',') {
        // An address of IPv6 stands in brackets.
        let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((name, port)) => (name, port.strip_prefix(':').unwrap_or("")),
            None => host.rsplit_once(':').unwrap_or((host, "")),
        };
        names.push(name);
        ports.push(port);
    }
    put("host", &names.join(","))?;
    if ports.iter().any(|port| !port.is_empty()) {
        put("port", &ports.join(","))?;
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair
            .split_once('=')
            .ok_or_else(|| Failure::Usage(format!("connection URI: \"{pair}\" has no \"=\"")))?;
        match (name, value) {
            ("ssl", "true") => put("sslmode", "require")?,
            _ => put(name, value)?,
        }
    }
    Ok(found)
}

/// `%20` and the like.
fn unescape(text: &str) -> Result<String, Failure> {
    let wrong = || Failure::Usage(format!("connection URI: \"{text}\" is not well escaped"));
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' {
            let digits = after.get(..2).and_then(|it| std::str::from_utf8(it).ok());
            let byte = digits.and_then(|it| u8::from_str_radix(it, 16).ok());
            bytes.push(byte.ok_or_else(wrong)?);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

/// The parameters of a service, from the user's file or the system's.
fn read_service(service: &str) -> Result<Parameters, Failure> {
    let own = std::env::var_os("PGSERVICEFILE").map(PathBuf::from);
    let system = std::env::var_os("PGSYSCONFDIR").map(PathBuf::from);
    let system = system.unwrap_or_else(|| PathBuf::from("/etc/postgresql-common"));
    let files = [
        own.or_else(|| at_home(".pg_service.conf")),
        Some(system.join("pg_service.conf")),
    ];
    for file in files.into_iter().flatten() {
        let Ok(text) = std::fs::read_to_string(&file) else {
            continue;
        };
        if let Some(found) = find_service(&text, service) {
            return Ok(found);
        }
    }
    Err(Failure::Usage(format!(
        "no service file defines the service \"{service}\""
    )))
}

/// A section of a service file.
fn find_service(text: &str, service: &str) -> Option<Parameters> {
    let header = format!("[{service}]");
    let mut lines = text.lines().map(str::trim);
    lines.by_ref().find(|line| *line == header)?;
    let section = lines.take_while(|line| !line.starts_with('['));
    let pairs = section
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let (name, value) = line.split_once('=')?;
            Some((name.trim().to_owned(), value.trim().to_owned()))
        });
    Some(pairs.collect())
}

/// The password for the first host, from the password file, unless others can read that file.
fn look_up_password(parameters: &Parameters) -> Option<String> {
    let file = match parameters.get("passfile") {
        Some(file) => PathBuf::from(file),
        None => at_home(".pgpass")?,
    };
    let metadata = std::fs::metadata(&file).ok()?;
    if metadata.mode() & 0o077 != 0 {
        eprintln!(
            "state-cache: {} is not used: others can read it (chmod 0600)",
            file.display()
        );
        return None;
    }
    let text = std::fs::read_to_string(&file).ok()?;
    find_password(&text, parameters)
}

/// The first line of a password file that fits.
fn find_password(text: &str, parameters: &Parameters) -> Option<String> {
    let first = |name: &str| {
        let value = parameters.get(name).map_or("", String::as_str);
        value.split(',').next().unwrap_or_default()
    };
    let host = match first("host") {
        // What libpq calls its own directory of sockets.
        "/var/run/postgresql" | "/tmp" => "localhost",
        other => other,
    };
    let port = Some(first("port"))
        .filter(|port| !port.is_empty())
        .unwrap_or("5432");
    let wanted = [host, port, first("dbname"), first("user")];
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .find_map(|line| {
            let mut fields = vec![String::new()];
            let mut characters = line.chars();
            while let Some(c) = characters.next() {
                // The fifth field is the password, which may hold colons.
                if c == ':' && fields.len() < 5 {
                    fields.push(String::new());
                    continue;
                }
                let last = fields.last_mut()?;
                match c {
                    '\\' => last.extend(characters.next()),
                    c => last.push(c),
                }
            }
            let password = fields.get(4)?.clone();
            let fits = wanted
                .iter()
                .zip(&fields)
                .all(|(wanted, given)| given == "*" || given == wanted);
            fits.then_some(password)
        })
}

/// Makes what the library connects with.
pub fn configure(parameters: &Parameters) -> Result<Config, Failure> {
    let mut config = Config::new();
    config.application_name("state-cache");
    let hosts = parameters.get("host").map_or("", String::as_str);
    let only_sockets = hosts.split(',').all(|host| host.starts_with('/'));
    let wrong = |name: &str, value: &str| Failure::Usage(format!("{name} cannot be \"{value}\""));
    for (name, value) in parameters {
        let bad = || wrong(name, value);
        let seconds = || value.parse().map(Duration::from_secs).map_err(|_| bad());
        match name.as_str() {
            "host" => {
                for host in value.split(',') {
                    config.host(host);
                }
            }
            "hostaddr" => {
                for address in value.split(',') {
                    config.hostaddr(address.parse().map_err(|_| bad())?);
                }
            }
            "port" => {
                for port in value.split(',') {
                    let port = if port.is_empty() { "5432" } else { port };
                    config.port(port.parse().map_err(|_| bad())?);
                }
            }
            "user" => {
                config.user(value);
            }
            "password" => {
                config.password(value);
            }
            "dbname" => {
                config.dbname(value);
            }
            "options" => {
                config.options(value);
            }
            "application_name" => {
                config.application_name(value);
            }
            "connect_timeout" => {
                // 0 is no limit, as in libpq.
                let limit: Duration = seconds()?;
                if !limit.is_zero() {
                    config.connect_timeout(limit);
                }
            }
            "tcp_user_timeout" => {
                let limit = value
                    .parse()
                    .map(Duration::from_millis)
                    .map_err(|_| bad())?;
                config.tcp_user_timeout(limit);
            }
            "keepalives" => {
                config.keepalives(value != "0");
            }
            "keepalives_idle" => {
                config.keepalives_idle(seconds()?);
            }
            "keepalives_interval" => {
                config.keepalives_interval(seconds()?);
            }
            "keepalives_count" => {
                config.keepalives_retries(value.parse().map_err(|_| bad())?);
            }
            "target_session_attrs" => {
                config.target_session_attrs(match value.as_str() {
                    "any" => TargetSessionAttrs::Any,
                    "read-write" | "primary" => TargetSessionAttrs::ReadWrite,
                    "read-only" | "standby" => TargetSessionAttrs::ReadOnly,
                    _ => return Err(bad()),
                });
            }
            "load_balance_hosts" => {
                config.load_balance_hosts(match value.as_str() {
                    "disable" => LoadBalanceHosts::Disable,
                    "random" => LoadBalanceHosts::Random,
                    _ => return Err(bad()),
                });
            }
            // Of a Unix socket nobody asks for TLS, whatever this says.
            "sslmode" if only_sockets => {}
            "sslmode" => {
                config.ssl_mode(match value.as_str() {
                    "disable" => SslMode::Disable,
                    "allow" | "prefer" => SslMode::Prefer,
                    "require" | "verify-ca" | "verify-full" => SslMode::Require,
                    _ => return Err(bad()),
                });
            }
            "service" | "passfile" | "sslrootcert" | "sslcert" | "sslkey" => {}
            other if IGNORED.contains(&other) => {}
            other => {
                return Err(Failure::Usage(format!(
                    "the connection parameter \"{other}\" is not known here"
                )));
            }
        }
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pairs(given: &str) -> Vec<(String, String)> {
        parse(given).unwrap().into_iter().collect()
    }

    fn expected(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn a_word_is_a_database() {
        assert_eq!(pairs("app"), expected(&[("dbname", "app")]));
    }

    #[test]
    fn pairs_have_quotes_and_backslashes() {
        assert_eq!(
            pairs(r" host = '/a b'  password='it\'s \\' dbname=x user='' "),
            expected(&[
                ("dbname", "x"),
                ("host", "/a b"),
                ("password", r"it's \"),
                ("user", "")
            ])
        );
        assert!(parse("host='x").is_err());
        assert!(parse("host=x port").is_err());
    }

    #[test]
    fn uris_have_hosts_ports_and_escapes() {
        assert_eq!(
            pairs(
                "postgresql://me:p%40ss@[::1]:5433,other/a%20b?sslmode=require&connect_timeout=3"
            ),
            expected(&[
                ("connect_timeout", "3"),
                ("dbname", "a b"),
                ("host", "::1,other"),
                ("password", "p@ss"),
                ("port", "5433,"),
                ("sslmode", "require"),
                ("user", "me"),
            ])
        );
        assert_eq!(
            pairs("postgres:///app?host=/run/x"),
            expected(&[("dbname", "app"), ("host", "/run/x")])
        );
        assert!(parse("postgres://x/%zz").is_err());
    }

    #[test]
    fn services_end_at_the_next_one() {
        let text = "[a]\nhost=x\n# no\n dbname = y\n[b]\nhost=z\n";
        let found: Vec<_> = find_service(text, "a").unwrap().into_iter().collect();
        assert_eq!(found, expected(&[("dbname", "y"), ("host", "x")]));
        assert!(find_service(text, "c").is_none());
    }

    #[test]
    fn passwords_are_those_of_the_first_line_that_fits() {
        let text = "# c\nother:*:*:*:no\nlocalhost:5432:a\\:b:*:with:colon\n*:*:*:me:last\n";
        let ask = |host: &str, database: &str| {
            let pairs = [("host", host), ("dbname", database), ("user", "me")];
            find_password(text, &expected(&pairs).into_iter().collect())
        };
        assert_eq!(
            ask("/var/run/postgresql", "a:b").as_deref(),
            Some("with:colon")
        );
        assert_eq!(ask("elsewhere", "x").as_deref(), Some("last"));
    }

    #[test]
    fn what_nobody_knows_is_refused() {
        let refused = |given: &str| configure(&parse(given).unwrap()).is_err();
        assert!(refused("sslcrl=/x"));
        assert!(refused("sslmode=perhaps"));
        assert!(refused("port=x"));
        assert!(!refused(
            "host=a,b port=1, sslmode=verify-full client_encoding=auto"
        ));
    }
}
