use k8s_openapi::api::core::v1::ServiceAccount;

use super::metadata;
use crate::plan::Plan;

/// The account of servers and Redis. Neither asks the API server anything.
pub(super) fn build(plan: &Plan) -> ServiceAccount {
    ServiceAccount {
        metadata: metadata(plan, plan.name.clone(), "server"),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}
