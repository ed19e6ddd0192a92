//! A copy of our schema by `pg_dump`, the program of PostgreSQL for it.

use std::{
    ffi::OsString,
    io::ErrorKind,
    os::unix::ffi::OsStringExt,
    path::Path,
    process::{Command, Stdio},
};

use tokio_postgres::config::{Host, SslMode};

use super::connection::Server;
use crate::{config::PostgresUrl, store::StoreError};

/// Where Debian and its relatives keep the certificates that everybody trusts.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Dumps the schema into a file. Gives the command that restores it from `target`.
///
/// # Errors
/// [`StoreError::Unusable`] when there is no `pg_dump`, else what it said.
pub fn dump(url: &str, copy: &Path, target: &Path) -> Result<String, StoreError> {
    let server = Server::parse(url)?;
    let output = Command::new("pg_dump")
        .args(["--format=custom", "--schema=nodecast", "--no-password", "--file"])
        .arg(copy)
        // In the environment, which nobody else sees; arguments are for everybody.
        .envs(environment(&server, url)?)
        .stdin(Stdio::null())
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(StoreError::Unusable(
                "there is no pg_dump here: apt-get install postgresql-client, of the server's \
                 version or newer; or where the server runs: pg_dump --format=custom \
                 --schema=nodecast --file=FILE DATABASE"
                    .to_owned(),
            ));
        }
        Err(error) => return Err(StoreError::Failed(format!("pg_dump: {error}"))),
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
        return Err(StoreError::Failed(format!("{server}: {said}")));
    }
    Ok(restore_command(&server, target))
}

/// The address as libpq wants it.
fn environment(server: &Server, url: &str) -> Result<Vec<(&'static str, OsString)>, StoreError> {
    let config = server.config();
    let hosts = config.get_hosts().iter().map(|host| match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.display().to_string(),
    });
    let hosts: Vec<String> = hosts.collect();
    let ports: Vec<String> = config.get_ports().iter().map(ToString::to_string).collect();
    let text = |text: Option<&str>| text.map(OsString::from);
    let mut values = vec![
        ("PGHOST", Some(hosts.join(",").into())),
        ("PGPORT", Some(OsString::from(ports.join(","))).filter(|ports| !ports.is_empty())),
        ("PGUSER", text(config.get_user())),
        ("PGDATABASE", text(config.get_dbname())),
        ("PGPASSWORD", config.get_password().map(|password| OsString::from_vec(password.to_vec()))),
        ("PGAPPNAME", text(Some("nodecast db backup"))),
    ];
    if config.get_ssl_mode() == SslMode::Disable {
        values.push(("PGSSLMODE", text(Some("disable"))));
    } else {
        // Its certificate is checked, as the daemon does.
        let roots = PostgresUrl::parse(url).map_err(StoreError::Unusable)?.roots;
        values.push(("PGSSLMODE", text(Some("verify-full"))));
        values.push(("PGSSLROOTCERT", Some(roots.unwrap_or(SYSTEM_ROOTS.to_owned()).into())));
    }
    Ok(values.into_iter().filter_map(|(name, value)| Some((name, value?))).collect())
}

/// Two commands for a shell. `pg_restore --clean` cannot take partitions away, nor what others have built
/// upon the tables, as `public.events` is, which the daemon makes again at its start.
fn restore_command(server: &Server, target: &Path) -> String {
    let config = server.config();
    let mut reach = Vec::new();
    reach.extend(config.get_hosts().first().map(|host| match host {
        Host::Tcp(name) => format!("--host={name}"),
        Host::Unix(path) => format!("--host={}", path.display()),
    }));
    reach.extend(config.get_ports().first().map(|port| format!("--port={port}")));
    reach.extend(config.get_user().map(|user| format!("--username={user}")));
    reach.push(format!("--dbname={}", config.get_dbname().unwrap_or_default()));
    let (reach, target) = (reach.join(" "), target.display());
    format!(
        "stop nodecast, psql {reach} -c 'DROP SCHEMA IF EXISTS nodecast CASCADE' && \
         pg_restore --single-transaction {reach} {target}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_in_the_environment_and_nowhere_else() {
        let url = "postgres://ann:s%20ecret@db.example:5433/events?sslrootcert=/ca.pem";
        let server = Server::parse("postgres://ann:s%20ecret@127.0.0.1:5433/events").unwrap();

        let environment = environment(&server, url).unwrap();
        let restore = restore_command(&server, Path::new("/backups/n.dump"));

        let value = |name| {
            environment.iter().find(|(known, _)| *known == name).map(|(_, v)| v.to_str().unwrap())
        };
        assert_eq!(value("PGPASSWORD"), Some("s ecret"));
        assert_eq!(value("PGPORT"), Some("5433"));
        assert_eq!(value("PGSSLMODE"), Some("disable"));
        assert_eq!(
            restore,
            "stop nodecast, psql --host=127.0.0.1 --port=5433 --username=ann --dbname=events \
             -c 'DROP SCHEMA IF EXISTS nodecast CASCADE' && pg_restore --single-transaction \
             --host=127.0.0.1 --port=5433 --username=ann --dbname=events /backups/n.dump"
        );
    }
}
