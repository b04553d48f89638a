//! Users and groups, read from `/etc/passwd` and `/etc/group` themselves: a name service that hangs cannot hang us.

use super::HostError;
use std::fs;

/// A user as the kernel knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    /// Name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
    /// Home folder.
    pub home: String,
}

/// Looks a user up by name; a number that no user has as its name is refused too.
pub(super) fn lookup(name: &str) -> Result<User, HostError> {
    let read = |path: &'static str| fs::read(path).map_err(HostError::path("read", path));
    let passwd = String::from_utf8_lossy(&read("/etc/passwd")?).into_owned();
    let mut user = find(&passwd, name).ok_or_else(|| HostError::NoUser(name.to_owned()))?;
    let group = String::from_utf8_lossy(&read("/etc/group")?).into_owned();
    user.groups = groups_of(&group, &user);
    Ok(user)
}

fn find(passwd: &str, name: &str) -> Option<User> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next()? != name {
            return None;
        }
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let home = fields.nth(1)?.to_owned();
        Some(User {
            name: name.to_owned(),
            uid,
            gid,
            groups: Vec::new(),
            home,
        })
    })
}

fn groups_of(group: &str, user: &User) -> Vec<u32> {
    let member_of = |line: &str| {
        let mut fields = line.split(':');
        let gid: u32 = fields.nth(2)?.parse().ok()?;
        let members = fields.next()?;
        (gid != user.gid && members.split(',').any(|member| member == user.name)).then_some(gid)
    };
    group.lines().filter_map(member_of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_with_its_groups() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\nmysql:x:107:112:M,,,:/nonexistent:/bin/false\n";
        let mut user = find(passwd, "mysql").expect("it is there");
        assert_eq!((user.uid, user.gid, user.home.as_str()), (107, 112, "/nonexistent"));
        user.groups = groups_of(
            "mysql:x:112:mysql\nssl-cert:x:99:postgres,mysql\nno:x:98:mysqld\nodd:x:zz:mysql\n",
            &user,
        );
        assert_eq!(user.groups, [99]);
        assert_eq!(find(passwd, "broken"), None);
        assert_eq!(find(passwd, ""), None);
    }

    #[test]
    fn an_unknown_user_is_named() {
        assert_eq!(
            lookup("no-such-user").unwrap_err().to_string(),
            "there is no user no-such-user in /etc/passwd"
        );
        assert_eq!(lookup("root").unwrap().uid, 0);
    }
}
