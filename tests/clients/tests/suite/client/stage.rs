//! A database and a Redis, in which what the feeder would write is written by hand.

use super::Home;
use super::redis::Redis;
use postgres::Client;
use serde_json::Value as Json;
use state_cache_client::{StateCache, Tier};
use state_cache_server_tests::Sql;

/// A database with class `config` in Redis.
pub struct Stage {
    pub home: Home,
    pub redis: Redis,
    pub session: Client,
}

impl Stage {
    pub fn new(name: &str) -> Self {
        let home = Home::new(name);
        let mut session = home.database.session();
        session.run("SELECT state_class_define('config', l2_ttl => '1 hour')");
        let redis = Redis::start(name);
        redis.tell_meta(&mut session, r#"["config"]"#);
        Self {
            home,
            redis,
            session,
        }
    }

    /// Changes a state in PostgreSQL. Its version is its number, if it is set to 1, 2, 3.
    pub fn set(&mut self, key: &str, n: u64) {
        self.session.run(&format!(
            "SELECT state_set('{key}', '{{\"n\": {n}}}', class => 'config')"
        ));
    }

    pub fn read(&self, cache: &StateCache, key: &str) -> (Option<Json>, Tier) {
        let answer = self.home.run(cache.read::<Json>("config", key)).unwrap();
        (answer.document.map(|it| (*it).clone()), answer.tier)
    }
}
