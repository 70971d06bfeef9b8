use std::time::Duration;

/// Why a reconcile did not end as it should.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing changes until somebody changes the object: `Stalled`.
    #[error("{reason}: {message}")]
    Terminal {
        /// For conditions; documented in docs/conditions.md.
        reason: &'static str,
        message: String,
    },
    /// The API server failed or refused.
    #[error("the API server: {}", said(.0))]
    Kube(#[from] kube::Error),
    /// It took too long.
    #[error("a reconcile did not end within {0:?}")]
    TimedOut(Duration),
}

impl Error {
    /// What the API server refuses (invalid, over a quota, against a policy, without the right) stays so until something
    /// changes; all else is tried again.
    pub fn terminal(&self) -> Option<(&'static str, String)> {
        match self {
            Self::Terminal { reason, message } => Some((reason, message.clone())),
            Self::Kube(kube::Error::Api(status)) if is_refusal(status.code) => {
                Some(("Refused", status.message.clone()))
            }
            _ => None,
        }
    }
}

/// Of the codes that blame the caller, those that may pass by themselves are none.
const fn is_refusal(code: u16) -> bool {
    matches!(code, 400..500) && !matches!(code, 401 | 404 | 408 | 409 | 410 | 429)
}

/// Of a refusal the sentence; its structure says the same again.
fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}
