//! What was applied and asked of a TaskQueue before, so that nothing is applied or asked twice.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::ObjectMeta;
use parking_lot::Mutex;

use crate::build::Child;

/// Everything is applied anew this often, whatever was done before.
const RESYNC: Duration = Duration::from_secs(600);
/// The most that jitter takes off or adds, as a share of [`RESYNC`]: TaskQueues that were made together are not looked at together
/// for ever.
const RESYNC_JITTER: f64 = 0.05;
/// While something is not as it is to be, what no watch sees (Secrets, volume claims) is looked at this often.
const RELOOK: Duration = Duration::from_secs(30);

/// A watch brings what came of our own request within this time, as a rule; until then the request is not made again.
pub const LAG: Duration = Duration::from_secs(3);

/// How a child stands to what was applied of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is what came of it, as far as anybody can tell.
    Current,
    /// It was applied a moment ago, and the watch has another version: an older one, or one that somebody made since.
    Unclear,
    /// It is to be applied.
    Due,
}

/// The memory of one TaskQueue.
#[derive(Debug)]
pub struct Memory {
    /// Of the TaskQueue: one of the same name that was made again begins anew.
    uid: String,
    children: HashMap<(String, String), Applied>,
    /// Objects that the plan has not, by kind and name, and that are known to be gone.
    pub gone: Vec<(String, String)>,
    /// Some child was [`Standing::Unclear`].
    pub unclear: bool,
    /// Claims as they were last asked for.
    pub claims: Option<Claims>,
    /// Generation of the spec that the claims were asked for.
    generation: Option<i64>,
    relook_at: Instant,
    resync_at: Instant,
}

/// Volume claims: of a scope's many, a few matter, and these change rarely.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    /// That of a Redis of its own.
    pub redis: Option<PersistentVolumeClaim>,
    /// That which captures go to, and the name that was asked for.
    pub captures: Option<PersistentVolumeClaim>,
    pub captures_name: Option<String>,
}

#[derive(Debug)]
struct Applied {
    at: Instant,
    hash: u64,
    version: Option<String>,
}

impl Memory {
    fn new(uid: &str, jitter: f64, now: Instant) -> Self {
        Self {
            uid: uid.to_owned(),
            children: HashMap::new(),
            gone: Vec::new(),
            unclear: false,
            claims: None,
            generation: None,
            relook_at: now + RELOOK,
            resync_at: now + RESYNC.mul_f64(1.0 + RESYNC_JITTER * (2.0 * jitter - 1.0)),
        }
    }

    /// Forgets what is to be looked at again. `watched` says which kinds' changes are seen anyway.
    fn begin(&mut self, generation: Option<i64>, watched: impl Fn(&str) -> bool, now: Instant) {
        if self.generation != generation {
            self.generation = generation;
            self.claims = None;
        }
        if now >= self.relook_at {
            self.relook_at = now + RELOOK;
            self.claims = None;
            self.children.retain(|(kind, _), _| watched(kind));
        }
    }

    /// All is as it is to be: what no watch sees is left alone until the resync.
    pub fn settled(&mut self) {
        self.relook_at = self.resync_at;
    }

    /// Something is missing: it may be what no watch sees.
    pub fn unsettled(&mut self, now: Instant) {
        self.relook_at = self.relook_at.min(now + RELOOK);
    }

    /// Time until everything is applied anew.
    pub fn until_resync(&self, now: Instant) -> Duration {
        self.resync_at.saturating_duration_since(now)
    }

    /// `seen` is what the watch has of a child; of a kind that is not watched nobody can tell.
    pub fn standing(
        &self,
        child: &Child,
        watched: bool,
        seen: Option<&ObjectMeta>,
        now: Instant,
    ) -> Standing {
        let applied = self.children.get(&key(child)).filter(|applied| applied.hash == hash(child));
        let Some(applied) = applied else { return Standing::Due };
        let version = seen.and_then(|seen| seen.resource_version.as_ref());
        if !watched || version.is_some() && version == applied.version.as_ref() {
            Standing::Current
        } else if now.duration_since(applied.at) < LAG {
            Standing::Unclear
        } else {
            Standing::Due
        }
    }

    /// Whether a child of this kind and name was applied before: then it is ours.
    pub fn has(&self, child: &Child) -> bool {
        self.children.contains_key(&key(child))
    }

    /// A child was applied, and this came of it.
    pub fn applied(&mut self, child: &Child, is: &ObjectMeta, now: Instant) {
        self.gone.retain(|gone| *gone != key(child));
        let applied = Applied { at: now, hash: hash(child), version: is.resource_version.clone() };
        self.children.insert(key(child), applied);
    }
}

fn key(child: &Child) -> (String, String) {
    (child.resource.kind.clone(), child.name.clone())
}

fn hash(child: &Child) -> u64 {
    let mut hasher = DefaultHasher::new();
    child.object.to_string().hash(&mut hasher);
    hasher.finish()
}

/// The memories of a scope, by namespace and name of the TaskQueue.
#[derive(Default)]
pub struct Memories(Mutex<HashMap<(String, String), Memory>>);

impl Memories {
    /// Takes one out for a reconcile. One that is not put back, because the reconcile was cut off, begins anew.
    pub fn take(
        &self,
        key: &(String, String),
        (uid, generation): (&str, Option<i64>),
        watched: impl Fn(&str) -> bool,
        now: Instant,
    ) -> Memory {
        let known = self.0.lock().remove(key);
        let known = known.filter(|memory| memory.uid == uid && now < memory.resync_at);
        let mut memory = known.unwrap_or_else(|| Memory::new(uid, rand::random(), now));
        memory.begin(generation, watched, now);
        memory
    }

    pub fn put(&self, key: (String, String), memory: Memory) {
        self.0.lock().insert(key, memory);
    }

    /// The TaskQueue is gone.
    pub fn forget(&self, key: &(String, String)) {
        self.0.lock().remove(key);
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Secret, Service};
    use kube::api::ApiResource;
    use serde_json::json;

    use super::*;

    fn child(resource: ApiResource, port: u16) -> Child {
        Child { resource, name: "orders".to_owned(), object: json!({"port": port}) }
    }

    fn service(port: u16) -> Child {
        child(ApiResource::erase::<Service>(&()), port)
    }

    fn version(version: &str) -> ObjectMeta {
        ObjectMeta { resource_version: Some(version.to_owned()), ..ObjectMeta::default() }
    }

    #[test]
    fn what_was_applied_is_applied_again_only_when_it_or_its_object_changed() {
        let start = Instant::now();
        let mut memory = Memory::new("uid", 0.5, start);
        let is = version("7");
        let standing = |memory: &Memory, port: u16, seen: Option<&str>, after: Duration| {
            memory.standing(&service(port), true, seen.map(version).as_ref(), start + after)
        };
        let zero = Duration::ZERO;
        assert_eq!(standing(&memory, 1, Some("7"), zero), Standing::Due, "it was never applied");
        memory.applied(&service(1), &is, start);
        for (port, seen, after, then, why) in [
            (1, Some("7"), zero, Standing::Current, "it is what came of it"),
            (1, Some("7"), 2 * LAG, Standing::Current, "and stays so"),
            (2, Some("7"), zero, Standing::Due, "the plan changed"),
            (1, Some("6"), zero, Standing::Unclear, "the watch may be late"),
            (1, None, zero, Standing::Unclear, "the watch may be late"),
            (1, Some("8"), LAG, Standing::Due, "somebody changed it"),
            (1, None, LAG, Standing::Due, "somebody deleted it"),
        ] {
            assert_eq!(standing(&memory, port, seen, after), then, "{why}");
        }
        let secret = child(ApiResource::erase::<Secret>(&()), 1);
        memory.applied(&secret, &is, start);
        assert_eq!(
            memory.standing(&secret, false, None, start + 2 * LAG),
            Standing::Current,
            "nobody can tell"
        );
    }

    #[test]
    fn a_task_queue_at_rest_is_left_alone_for_nine_minutes_and_one_that_is_not_for_half_a_minute() {
        let watched = |kind: &str| kind != "Secret";
        let secret = child(ApiResource::erase::<Secret>(&()), 1);
        let start = Instant::now();
        let key = ("shop".to_owned(), "orders".to_owned());
        for jitter in [0.0, 0.5, 1.0] {
            let memories = Memories::default();
            let mut memory = Memory::new("uid", jitter, start);
            memory.begin(Some(1), watched, start);
            memory.applied(&secret, &version("1"), start);
            memory.claims = Some(Claims::default());
            memory.settled();
            memories.put(key.clone(), memory);
            let mut memory = memories.take(&key, ("uid", Some(1)), watched, start + Duration::from_secs(540));
            assert!(memory.has(&secret) && memory.claims.is_some(), "at rest");
            let later = start + Duration::from_secs(541);
            memory.unsettled(later);
            memory.begin(Some(1), watched, later + RELOOK);
            assert!(!memory.has(&secret) && memory.claims.is_none(), "something is missing");
            memory.applied(&secret, &version("1"), start);
            memories.put(key.clone(), memory);
            let memory = memories.take(&key, ("uid", Some(1)), watched, start + Duration::from_secs(631));
            assert!(!memory.has(&secret), "the resync");
        }
        let memories = Memories::default();
        let mut memory = memories.take(&key, ("uid", Some(1)), watched, start);
        memory.applied(&secret, &version("1"), start);
        memory.claims = Some(Claims::default());
        memory.settled();
        memories.put(key.clone(), memory);
        let memory = memories.take(&key, ("uid", Some(2)), watched, start);
        assert!(memory.has(&secret) && memory.claims.is_none(), "another spec may name another claim");
        memories.put(key.clone(), memory);
        assert!(!memories.take(&key, ("other", Some(1)), watched, start).has(&secret), "another TaskQueue");
    }
}
