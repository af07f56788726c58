//! The users of the VMess inbounds, as hosts see and change them while a tunnel runs.
//!
//! Each inbound with a tag has its table of users in [`UserTables`], one for all shards that listen for it. A table
//! replaces its users as a whole, so that a shard never sees half a change. An inbound whose ports change has none: its
//! accounts come and go with the ports.

use super::api::{NewUser, UserInfo};
use super::stats::Counters;
use crate::error::{Error, ErrorKind};
use crate::vmess::Id;
use crate::vmess::gate::{TooManyTags, User, check_legacy_tags};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The users of one VMess inbound, on all shards.
pub(crate) trait UserTable: Send + Sync {
    /// The users that are served now.
    fn users(&self) -> Vec<User>;

    /// Serves these users from now on. Connections that are open live on.
    fn set_users(&self, users: Vec<User>);

    /// The most entries in the tables that legacy requests are looked up in: `legacyTagLimit`.
    fn legacy_tag_limit(&self) -> usize;
}

/// The tables of the VMess inbounds that listen, by tag.
#[derive(Default)]
pub(crate) struct UserTables {
    tables: Mutex<Vec<Entry>>,
    /// Held by who changes users: reading a table, checking and writing it back is one step.
    changing: Mutex<()>,
}

/// An inbound's tag and its users; `None` where they change with the ports.
pub(crate) type Entry = (Arc<str>, Option<Arc<dyn UserTable>>);

impl UserTables {
    /// Takes the tables of the inbounds that listen from now on, in the place of those before.
    pub(crate) fn replace(&self, tables: Vec<Entry>) {
        *self.lock() = tables;
    }

    /// Changes users while no host does.
    pub(crate) fn change<R>(&self, change: impl FnOnce() -> R) -> R {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        change()
    }

    /// The users of an inbound, with what was counted for them.
    ///
    /// # Errors
    /// `Misuse` if no VMess inbound has the tag.
    pub(crate) fn list(&self, inbound: &str, counters: &Counters) -> Result<Vec<UserInfo>, Error> {
        let info = |user: User| {
            let (uplink_bytes, downlink_bytes) = counters.of_user(&user.email);
            let User { alter_id, level, email, .. } = user;
            UserInfo { email: email.as_ref().to_owned(), alter_id, level, uplink_bytes, downlink_bytes }
        };
        Ok(self.get(inbound)?.users().into_iter().map(info).collect())
    }

    /// Adds a user.
    ///
    /// # Errors
    /// `Misuse` if no VMess inbound has the tag; `ConfigInvalid` with the path `id`, `alterId` or `email` if that cannot be.
    pub(crate) fn add(&self, inbound: &str, user: &NewUser) -> Result<(), Error> {
        let user = read(user)?;
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let table = self.get(inbound)?;
        let mut users = table.users();
        if users.iter().any(|known| same_email(&known.email, &user.email)) {
            return Err(invalid("email", "a user of the inbound has this e-mail; case does not matter"));
        }
        if users.iter().any(|known| known.id == user.id) {
            return Err(invalid("id", "a user of the inbound has this id"));
        }
        if user.alter_id > 0 {
            self.check_legacy(user.alter_id, table.legacy_tag_limit())?;
        }
        users.push(user);
        table.set_users(users);
        Ok(())
    }

    /// Removes a user by e-mail; `false` if there is none of it.
    ///
    /// # Errors
    /// `Misuse` if no VMess inbound has the tag, or the e-mail is empty.
    pub(crate) fn remove(&self, inbound: &str, email: &str) -> Result<bool, Error> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let table = self.get(inbound)?;
        if email.trim().is_empty() {
            return Err(Error::new(ErrorKind::Misuse, "a user is removed by e-mail, and this one is empty"));
        }
        let mut users = table.users();
        let before = users.len();
        users.retain(|user| !same_email(&user.email, email.trim()));
        let removed = users.len() < before;
        if removed {
            table.set_users(users);
        }
        Ok(removed)
    }

    /// Checks that the legacy ids of all inbounds together, and of one more user, stay within the limit: as for a config.
    fn check_legacy(&self, alter_id: u16, limit: usize) -> Result<(), Error> {
        let tables: Vec<_> = self.lock().iter().filter_map(|(_, table)| table.clone()).collect();
        let alter_ids = tables.iter().flat_map(|table| table.users()).map(|user| user.alter_id);
        check_legacy_tags(alter_ids.chain([alter_id]), limit).map_err(|TooManyTags { needed, limit }| {
            let text =
                format!("the users' legacy ids would take {needed} entries, more than `legacyTagLimit`");
            invalid("alterId", text)
                .with_reason(format!("found {needed}; allowed: {limit} entries"))
                .with_hint("use the alterId 0, which takes none, or raise `vmesskit.legacyTagLimit`")
        })
    }

    fn get(&self, inbound: &str) -> Result<Arc<dyn UserTable>, Error> {
        let found = self.lock().iter().find(|(tag, _)| **tag == *inbound).map(|(_, table)| table.clone());
        match found {
            Some(Some(table)) => Ok(table),
            Some(None) => Err(Error::new(
                ErrorKind::Misuse,
                "the accounts of an inbound whose ports change go with the ports",
            )
            .with_hint("add users to, and remove them from, the inbound whose `detour` names this one")),
            None => Err(Error::new(ErrorKind::Misuse, "no vmess inbound has this tag").with_hint(
                "give the tag of a vmess inbound of the config in force; one without a tag needs one",
            )),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether two e-mails are one person's, as the config's reader compares them.
fn same_email(one: &str, other: &str) -> bool {
    match one.is_ascii() && other.is_ascii() {
        true => one.eq_ignore_ascii_case(other),
        // Some other letters have a lower case in ASCII.
        false => one.to_lowercase() == other.to_lowercase(),
    }
}

/// Reads a user that a host describes.
fn read(user: &NewUser) -> Result<User, Error> {
    let Some((id, _)) = Id::parse(user.id.trim()) else {
        return Err(
            invalid("id", "this is no id").with_reason("allowed: a UUID, or another text of 1 to 30 bytes")
        );
    };
    let email = user.email.trim();
    if email.is_empty() {
        return Err(
            invalid("email", "the e-mail is empty").with_hint("the user is counted and removed by it")
        );
    }
    let (alter_id, level) = (user.alter_id, user.level);
    Ok(User { id, alter_id, level, email: email.into(), no_termination_signal: false })
}

fn invalid(path: &str, text: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::ConfigInvalid, text).with_path(path)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::thread;

    const ID: &str = "b831381d-6324-4d53-ad4f-8cda48b30811";

    /// A table that only remembers.
    #[derive(Default)]
    pub(crate) struct Remembered(Mutex<Vec<User>>);

    impl UserTable for Remembered {
        fn users(&self) -> Vec<User> {
            self.0.lock().expect("no panic").clone()
        }

        fn set_users(&self, users: Vec<User>) {
            *self.0.lock().expect("no panic") = users;
        }

        fn legacy_tag_limit(&self) -> usize {
            5 * crate::vmess::gate::LEGACY_SECONDS
        }
    }

    fn tables() -> UserTables {
        let tables = UserTables::default();
        tables.replace(entries(&["in", "also"]));
        tables
    }

    fn entries(tags: &[&str]) -> Vec<Entry> {
        let table = |tag: &&str| {
            let table = (*tag != "changing").then(|| Arc::new(Remembered::default()) as Arc<dyn UserTable>);
            (Arc::from(*tag), table)
        };
        tags.iter().map(table).collect()
    }

    fn user(id: &str, email: &str) -> NewUser {
        NewUser { id: id.into(), email: email.into(), ..NewUser::default() }
    }

    fn emails(tables: &UserTables) -> Vec<String> {
        let users = tables.list("in", &Counters::default()).expect("an inbound");
        users.into_iter().map(|user| user.email).collect()
    }

    #[test]
    fn users_come_and_go() {
        let tables = tables();
        let ann = NewUser { alter_id: 1, level: 7, ..user(ID, " Ann@example.com ") };
        tables.add("in", &ann).expect("a new user");
        tables.add("in", &user("example", "ben")).expect("an id that is mapped");
        assert_eq!(emails(&tables), ["Ann@example.com", "ben"]);
        let counters = Counters::default();
        let level = crate::config::Level { stats_uplink: true, ..Default::default() };
        counters.user("Ann@example.com", &level).expect("counted").add(5, 6);
        let info = UserInfo {
            email: "Ann@example.com".into(),
            alter_id: 1,
            level: 7,
            uplink_bytes: 5,
            downlink_bytes: 6,
        };
        assert_eq!(tables.list("in", &counters).expect("an inbound")[0], info);
        assert_eq!(tables.remove("in", "ANN@example.com"), Ok(true));
        assert_eq!(tables.remove("in", "ann@example.com"), Ok(false), "gone already");
        assert_eq!(emails(&tables), ["ben"]);
    }

    #[test]
    fn every_refusal_says_what_is_wrong() {
        let tables = tables();
        tables.add("in", &user(ID, "Ann")).expect("a new user");
        let legacy = NewUser { alter_id: 4, ..user("legacy", "leo") };
        tables.add("in", &legacy).expect("as many legacy ids as the limit allows");
        let more = NewUser { alter_id: 1, ..user("more", "mia") };
        for (inbound, user, kind, path) in [
            ("other", user("x", "x"), ErrorKind::Misuse, ""),
            ("", user("x", "x"), ErrorKind::Misuse, ""),
            ("in", user("", "x"), ErrorKind::ConfigInvalid, "id"),
            ("in", user("0123456789012345678901234567890", "x"), ErrorKind::ConfigInvalid, "id"),
            ("in", user(&ID.replace('-', ""), "x"), ErrorKind::ConfigInvalid, "id"),
            ("in", user("x", " "), ErrorKind::ConfigInvalid, "email"),
            ("in", user("x", "aNN"), ErrorKind::ConfigInvalid, "email"),
            ("in", more.clone(), ErrorKind::ConfigInvalid, "alterId"),
            ("also", more, ErrorKind::ConfigInvalid, "alterId"),
        ] {
            let error = tables.add(inbound, &user).expect_err("refused");
            assert_eq!((error.kind, error.path.as_str()), (kind, path), "{user:?}");
            assert!(!error.to_string().contains(ID) && !error.to_string().contains("Ann"), "{error}");
        }
        assert_eq!(emails(&tables), ["Ann", "leo"], "a refusal changes nothing");
        assert_eq!(tables.remove("in", "").expect_err("refused").kind, ErrorKind::Misuse);
        assert_eq!(tables.remove("other", "Ann").expect_err("refused").kind, ErrorKind::Misuse);
        assert!(tables.list("other", &Counters::default()).is_err());
    }

    #[test]
    fn threads_lose_no_change() {
        let tables = Arc::new(tables());
        let adders: Vec<_> = (0..4)
            .map(|adder| {
                let tables = Arc::clone(&tables);
                thread::spawn(move || {
                    for index in 0..50 {
                        let name = format!("{adder}-{index}");
                        tables.add("in", &user(&name, &name)).expect("a new user");
                        if index % 2 == 1 {
                            assert_eq!(tables.remove("in", &name), Ok(true));
                        }
                    }
                })
            })
            .collect();
        adders.into_iter().for_each(|adder| adder.join().expect("no panic"));
        assert_eq!(emails(&tables).len(), 4 * 25);
    }

    #[test]
    fn tables_go_with_their_inbounds() {
        let tables = tables();
        tables.add("in", &user(ID, "ann")).expect("a new user");
        tables.replace(entries(&["in", "changing"]));
        assert_eq!(emails(&tables), [""; 0], "the one that took its place");
        let error = tables.list("changing", &Counters::default()).expect_err("its users go with its ports");
        assert!(error.kind == ErrorKind::Misuse && error.hint.contains("detour"), "{error}");
        tables.replace(Vec::new());
        assert!(tables.list("in", &Counters::default()).is_err());
    }

    #[test]
    fn ids_stay_out_of_debug_output() {
        let shown = format!("{:?}", user(ID, "ann"));
        assert!(!shown.contains("b831381d") && shown.contains("ann"), "{shown}");
    }
}
