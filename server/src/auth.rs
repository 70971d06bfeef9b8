//! Who calls, and what they may do: static tokens with scopes, a tenant and queue patterns.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use brisq_api::{ApiError, ErrorCode};
use brisq_model::{QueueName, TenantName};
use brisq_yaml::{Echo, Mistake};
use data_encoding::HEXLOWER_PERMISSIVE;
use parking_lot::RwLock;
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// Tenant of every caller while authentication is off.
pub const DEFAULT_TENANT: &str = "default";
/// Tokens in a file; each costs memory and nothing else.
const TOKENS_MAX: usize = 10_000;

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Enqueue and cancel.
    TasksWrite,
    /// Read tasks and queues.
    TasksRead,
    /// Claim, and act on leases.
    Work,
    /// Pause and resume queues; profiles and other insight into the process.
    Admin,
}

impl Scope {
    const ALL: [Self; 4] = [Self::TasksWrite, Self::TasksRead, Self::Work, Self::Admin];

    /// Name in tokens files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TasksWrite => "tasks:write",
            Self::TasksRead => "tasks:read",
            Self::Work => "work",
            Self::Admin => "admin",
        }
    }
}

/// An authenticated caller.
#[derive(Debug)]
pub struct Caller {
    /// Name of its token; empty where none is needed.
    pub name: String,
    /// Whose queues it sees.
    pub tenant: TenantName,
    scopes: Vec<Scope>,
    queues: Vec<Pattern>,
}

impl Caller {
    /// Refuses what the token's scopes do not cover.
    pub fn check_scope(&self, scope: Scope) -> Result<(), ApiError> {
        if self.scopes.contains(&scope) {
            return Ok(());
        }
        let message = format!("The token lacks the scope `{}`. Use a token that has it.", scope.name());
        Err(ApiError::new(ErrorCode::Forbidden, message).with("scope", scope.name()))
    }

    /// Refuses queues that the token's patterns do not cover.
    pub fn check_queue(&self, queue: &QueueName) -> Result<(), ApiError> {
        if self.sees(queue) {
            return Ok(());
        }
        Err(ApiError::new(ErrorCode::Forbidden, "The token does not cover this queue. Use one that does.")
            .with("queue", queue))
    }

    /// Whether the token's patterns cover the queue.
    pub fn sees(&self, queue: &QueueName) -> bool {
        self.queues.is_empty() || self.queues.iter().any(|pattern| pattern.covers(queue.as_str()))
    }
}

/// `emails`, or `orders.*` for every name that begins with `orders.`.
#[derive(Debug, PartialEq, Eq)]
enum Pattern {
    Exact(String),
    Prefix(String),
}

impl Pattern {
    fn parse(text: &str) -> Option<Self> {
        match text.strip_suffix('*') {
            Some(prefix) => (!prefix.contains('*')).then(|| Self::Prefix(prefix.to_owned())),
            None => QueueName::new(text).ok().map(|name| Self::Exact(name.as_str().to_owned())),
        }
    }

    fn covers(&self, queue: &str) -> bool {
        match self {
            Self::Exact(name) => name == queue,
            Self::Prefix(prefix) => queue.starts_with(prefix.as_str()),
        }
    }
}

/// Callers by the hash of their token.
type Known = Arc<HashMap<[u8; 32], Arc<Caller>>>;

/// Longest name of a token: it stands in the pauses that it asked for.
const TOKEN_NAME_MAX_BYTES: usize = 128;

/// How callers are told apart. All clones change together.
#[derive(Clone)]
pub enum Auth {
    /// Everybody is [`DEFAULT_TENANT`] and may do everything.
    Off(Arc<Caller>),
    /// By the SHA-256 of their bearer token, so that the file holds no secret.
    Tokens(Arc<RwLock<Known>>),
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off(_) => f.write_str("Off"),
            Self::Tokens(tokens) => write!(f, "Tokens({})", tokens.read().len()),
        }
    }
}

impl Auth {
    /// Without authentication.
    pub fn off() -> Self {
        let tenant = TenantName::new(DEFAULT_TENANT).expect("invariant: the default tenant's name is valid");
        Self::Off(Arc::new(Caller {
            name: String::new(),
            tenant,
            scopes: Scope::ALL.to_vec(),
            queues: Vec::new(),
        }))
    }

    /// Tenants that callers belong to, by name, at most `most` of them.
    pub fn tenants(&self, most: usize) -> Vec<TenantName> {
        let mut tenants: Vec<TenantName> = match self {
            Self::Off(everybody) => vec![everybody.tenant.clone()],
            Self::Tokens(tokens) => tokens.read().values().map(|caller| caller.tenant.clone()).collect(),
        };
        tenants.sort();
        tenants.dedup();
        tenants.truncate(most);
        tenants
    }

    /// Whether callers need a token.
    pub fn is_on(&self) -> bool {
        matches!(self, Self::Tokens(_))
    }

    /// Reads a tokens file.
    ///
    /// # Errors
    /// Every mistake in it, with its place.
    pub fn from_yaml(text: &str) -> Result<Self, Vec<String>> {
        let file: TokensFile = brisq_yaml::read(text, Echo::Nothing)
            .map_err(|mistakes| mistakes.iter().map(Mistake::to_string).collect::<Vec<_>>())?;
        if file.tokens.len() > TOKENS_MAX {
            return Err(vec![format!(
                "tokens: {} entries, at most {TOKENS_MAX} are taken",
                file.tokens.len()
            )]);
        }
        let mut tokens = HashMap::new();
        let mut mistakes = Vec::new();
        for (index, entry) in file.tokens.into_iter().enumerate() {
            let place = format!("tokens[{index}] ({})", entry.name);
            match entry.check() {
                Ok((hash, caller)) => {
                    if tokens.insert(hash, Arc::new(caller)).is_some() {
                        mistakes.push(format!("{place}: the same token stands above"));
                    }
                }
                Err(entry) => mistakes.extend(entry.into_iter().map(|mistake| format!("{place}: {mistake}"))),
            }
        }
        if mistakes.is_empty() {
            Ok(Self::Tokens(Arc::new(RwLock::new(Arc::new(tokens)))))
        } else {
            Err(mistakes)
        }
    }

    /// Knows the tokens of `newer` from now on, everywhere. Whether callers need one at all does not change.
    pub fn adopt(&self, newer: &Self) {
        if let (Self::Tokens(known), Self::Tokens(newer)) = (self, newer) {
            *known.write() = Arc::clone(&newer.read());
        }
    }

    /// The caller behind an `Authorization` header.
    pub fn caller(&self, authorization: Option<&str>) -> Result<Arc<Caller>, ApiError> {
        let tokens = match self {
            Self::Off(everybody) => return Ok(Arc::clone(everybody)),
            Self::Tokens(tokens) => tokens,
        };
        let refused = |message| Err(ApiError::new(ErrorCode::Unauthorized, message));
        let Some(header) = authorization else {
            return refused("Send `Authorization: Bearer TOKEN`. `brisq token new` makes tokens.");
        };
        let Some(token) = bearer(header) else {
            return refused("The Authorization header is not `Bearer TOKEN`.");
        };
        let hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        match tokens.read().get(&hash) {
            Some(caller) => Ok(Arc::clone(caller)),
            None => {
                refused("This server does not know the token. Check it against the server's tokens file.")
            }
        }
    }
}

fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty()).then(|| token.trim())
}

#[derive(Deserialize)]
struct TokensFile {
    tokens: Vec<TokenEntry>,
}

#[derive(Deserialize)]
struct TokenEntry {
    name: String,
    sha256: String,
    tenant: String,
    scopes: Vec<String>,
    #[serde(default)]
    queues: Vec<String>,
}

impl TokenEntry {
    fn check(self) -> Result<([u8; 32], Caller), Vec<String>> {
        let mut mistakes = Vec::new();
        let hash = parse_hash(&self.sha256);
        if hash.is_none() {
            mistakes.push("sha256: not 64 hexadecimal digits".to_owned());
        }
        if self.name.len() > TOKEN_NAME_MAX_BYTES {
            mistakes.push(format!("name: longer than {TOKEN_NAME_MAX_BYTES} bytes"));
        }
        let tenant = TenantName::new(&self.tenant);
        if let Err(error) = &tenant {
            mistakes.push(format!("tenant: {error}"));
        }
        let mut scopes = Vec::new();
        for text in &self.scopes {
            match Scope::ALL.into_iter().find(|scope| scope.name() == text) {
                Some(scope) => scopes.push(scope),
                None => {
                    mistakes
                        .push(format!("scopes: `{text}` is none of tasks:write, tasks:read, work, admin"));
                }
            }
        }
        let mut queues = Vec::new();
        for text in &self.queues {
            match Pattern::parse(text) {
                Some(pattern) => queues.push(pattern),
                None => {
                    mistakes.push(format!(
                        "queues: `{text}` is neither a queue name nor a prefix with `*` at its end"
                    ));
                }
            }
        }
        match (hash, tenant) {
            (Some(hash), Ok(tenant)) if mistakes.is_empty() => {
                Ok((hash, Caller { name: self.name, tenant, scopes, queues }))
            }
            _ => Err(mistakes),
        }
    }
}

fn parse_hash(text: &str) -> Option<[u8; 32]> {
    HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    // SHA-256 of "secret".
    const HASH: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

    fn tokens(queues: &str, scopes: &str) -> Auth {
        let yaml = format!(
            "tokens:\n- {{name: a, sha256: {HASH}, tenant: acme, scopes: [{scopes}], queues: [{queues}]}}\n"
        );
        Auth::from_yaml(&yaml).expect("valid")
    }

    #[test]
    fn a_token_is_known_by_its_hash() {
        let auth = tokens("", "work");
        assert_eq!(auth.caller(Some("Bearer secret")).unwrap().tenant.as_str(), "acme");
        assert_eq!(auth.caller(Some("bearer secret")).unwrap().tenant.as_str(), "acme");
        for header in [None, Some("Bearer wrong"), Some("secret"), Some("Basic secret"), Some("Bearer ")] {
            assert_eq!(auth.caller(header).unwrap_err().code, ErrorCode::Unauthorized, "{header:?}");
        }
    }

    #[test]
    fn a_newer_file_replaces_the_tokens_of_all_clones() {
        let auth = tokens("", "work");
        let in_use = auth.clone();
        auth.adopt(&Auth::from_yaml("tokens: []").unwrap());
        assert!(in_use.caller(Some("Bearer secret")).is_err());
        auth.adopt(&tokens("", "work"));
        assert!(in_use.caller(Some("Bearer secret")).is_ok());
    }

    #[test]
    fn scopes_and_patterns_bound_what_it_may_do() {
        let auth = tokens("emails, \"orders.*\"", "work, \"tasks:read\"");
        let caller = auth.caller(Some("Bearer secret")).unwrap();
        assert!(caller.check_scope(Scope::Work).is_ok());
        assert_eq!(caller.check_scope(Scope::TasksWrite).unwrap_err().code, ErrorCode::Forbidden);
        for (queue, covered) in [("emails", true), ("orders.eu", true), ("orders", false), ("emails2", false)]
        {
            assert_eq!(caller.check_queue(&QueueName::new(queue).unwrap()).is_ok(), covered, "{queue}");
        }
    }

    #[test]
    fn every_mistake_of_a_file_is_reported() {
        let yaml = format!(
            "tokens:\n- {{name: a, sha256: x, tenant: \"-\", scopes: [fly], queues: [\"*a*\"]}}\n\
             - {{name: b, sha256: {HASH}, tenant: t, scopes: []}}\n- {{name: c, sha256: {HASH}, tenant: t, scopes: []}}\n"
        );
        let mistakes = Auth::from_yaml(&yaml).unwrap_err();
        assert_eq!(mistakes.len(), 5, "{mistakes:?}");
        assert!(Auth::from_yaml("tokens: [{name: a}]").is_err());
        assert!(Auth::from_yaml("").is_err());
    }
}
