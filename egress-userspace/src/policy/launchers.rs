//! Local services that act for whoever asks: receives a rule, says whether it opens one and is a way out by itself.

use std::borrow::Cow;

use super::{Action, Notice, Rule, Target, unix};

/// Their sockets as [`normal`] has them, and what the service does.
const LAUNCHERS: [(&str, &str); 12] = [
    ("/run/docker.sock", "Docker starts containers outside"),
    ("/run/user/0/docker.sock", "Docker starts containers outside"),
    ("/run/containerd/containerd.sock", "containerd starts containers outside"),
    ("/run/containerd/containerd.sock.ttrpc", "containerd starts containers outside"),
    ("/run/podman/podman.sock", "Podman starts containers outside"),
    ("/run/user/0/podman/podman.sock", "Podman starts containers outside"),
    ("/run/dbus/system_bus_socket", "systemd and others start programs outside"),
    ("/run/systemd/private", "systemd starts programs outside"),
    ("/run/user/0/bus", "the session's systemd starts programs outside"),
    ("/run/user/0/systemd/private", "the session's systemd starts programs outside"),
    ("/tmp/.X11-unix/X0", "the X server types into any window"),
    ("/tmp/.X11-unix/X1", "the X server types into any window"),
];

/// Tells of a rule that opens a launcher.
pub(super) fn notice(rule: &Rule) -> Option<Notice> {
    let (Target::Unix(pattern), Action::Allow) = (&rule.target, rule.action) else { return None };
    let pattern = normal(pattern);
    let (_, what) = LAUNCHERS.iter().find(|(socket, _)| unix::covers(&pattern, socket))?;
    let message = format!("`{rule}` is a way out of the scope: {what} for whoever asks");
    Some(Notice { origin: Some(rule.origin.clone()), message })
}

/// Below `/run`, of user 0, and the path of an abstract name that is one.
fn normal(pattern: &str) -> Cow<'_, str> {
    let pattern = pattern.strip_prefix('@').filter(|rest| rest.starts_with("/tmp/")).unwrap_or(pattern);
    let run = pattern.strip_prefix("/var").filter(|rest| rest.starts_with("/run/")).unwrap_or(pattern);
    let Some(of_user) = run.strip_prefix("/run/user/") else { return run.into() };
    let rest = of_user.trim_start_matches(|c: char| c.is_ascii_digit());
    match rest.starts_with('/') && rest.len() < of_user.len() {
        true => format!("/run/user/0{rest}").into(),
        false => run.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Origin;

    #[test]
    fn whoever_opens_a_launcher_is_told() {
        // Mutations seen to fail here: users other than one; `/var/run` left as it is; a denial told too.
        for (pattern, expected) in [
            ("/run/docker.sock", true),
            ("/var/run/docker.sock", true),
            ("/run/docker.sock*", true),
            ("/run/*", true),
            ("/run/user/1000/bus", true),
            ("/run/user/65534/bus", true),
            ("/run/user/1000/*", true),
            ("/run/user/*", true),
            ("/run/user/1000/bus2", false),
            ("/run/user/bus", false),
            ("@/tmp/.X11-unix/X0", true),
            ("@/run/docker.sock", false),
            ("/run/postgresql/.s.PGSQL.5432", false),
        ] {
            for action in [Action::Allow, Action::Deny] {
                let target = Target::Unix(pattern.to_owned());
                let origin = Origin::Builtin(String::new());
                let rule = Rule { action, target, ports: Vec::new(), transports: Vec::new(), origin };
                let told = notice(&rule).is_some();
                assert_eq!(told, expected && action == Action::Allow, "{pattern} {action:?}");
            }
        }
    }
}
