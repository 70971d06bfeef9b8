//! What every backend must do, case by case the same: named sentences, each against a queue of its own.
//!
//! [`conformance!`](crate::conformance!) makes one test of each case, and [`wakeups!`](crate::wakeups!) one of each case that
//! needs two servers on one store. Cases use real time and short leases, because a store's clock is its own.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a suite for tests: a broken assumption ends its case"
)]

mod claiming;
mod declaring;
mod deleting;
mod enqueueing;
mod expiring;
mod fairness;
mod finding;
mod governing;
mod keeping;
mod leasing;
mod limiting;
mod listing;
mod model;
mod ordering;
mod pausing;
mod purging;
mod queue;
mod retrying;
mod scheduling;
mod sizes;
mod timing;
mod waking;

use std::pin::Pin;
use std::sync::Arc;

use crate::Store;

pub use model::{follows_the_model, walks_agree};
pub use queue::Queue;

/// A case under way. Boxed, so that a suite has one type to run and not hundreds to compile.
pub type Case<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Runs one case on the store that opens.
pub fn run<Guard>(opens: impl Future<Output = (Vec<Arc<dyn Store>>, Guard)>, case: fn(&Queue) -> Case<'_>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (handles, _guard) = opens.await;
        case(&Queue::shared(handles).await).await;
    });
}

/// Publishes the cases of the private modules: one that is not listed here is dead code, which is an error. Two lists: what
/// every store does, and what stores do that several servers share.
macro_rules! cases {
    ($list:ident in $cases:ident: $($module:ident: $($name:ident)+;)+) => {
        /// The cases of this list.
        pub mod $cases {
            $($(
                #[allow(missing_docs, clippy::allow_attributes, reason = "a case's name is its sentence")]
                pub fn $name(queue: &super::Queue) -> super::Case<'_> {
                    Box::pin(super::$module::$name(queue))
                }
            )+)+
        }

        /// Makes one test of each case of the list. `$open` is an async function that returns so many handles on one store,
        /// and whatever has to live as long.
        #[macro_export]
        macro_rules! $list {
            ($open:path, $handles:literal) => {
                $($(
                    #[test]
                    fn $name() {
                        $crate::conformance::run($open($handles), $crate::conformance::$cases::$name);
                    }
                )+)+
            };
        }
    };
}

cases! {
    conformance in cases:
    enqueueing:
        a_new_task_is_ready_and_looks_as_it_was_made
        a_batch_keeps_its_order_and_answers_by_index
        payload_bytes_come_back_as_they_were
        a_large_payload_comes_back_whole
        an_id_that_is_taken_is_refused_and_its_neighbours_are_not
        an_id_that_was_completed_is_still_taken
        an_idempotency_key_answers_the_task_that_holds_it
        an_idempotency_key_holds_within_one_batch
        an_idempotency_key_holds_after_completion_while_the_task_is_kept
        the_same_key_in_another_queue_is_another_key
        a_thousand_tasks_fit_one_call
        an_empty_batch_is_answered
        a_key_is_free_once_its_tasks_retention_is_over
        a_key_that_was_given_anew_outlives_the_sweep_of_the_old_task
        a_queued_task_is_replaced_under_its_id_in_a_new_place
        what_replaces_a_task_begins_anew
        a_task_that_is_leased_or_has_ended_is_not_replaced
        tasks_of_one_batch_replace_each_other
        a_key_that_nobody_has_is_taken_in_every_mode
        a_queue_that_the_store_does_not_know_is_refused;
    ordering:
        tasks_of_one_ordering_key_run_one_at_a_time_in_the_order_of_their_enqueues
        other_ordering_keys_and_tasks_without_one_go_on
        what_ends_a_hold_hands_the_ordering_key_on
        a_worker_that_completes_and_claims_in_one_call_gets_the_next_of_its_key
        an_expired_lease_and_a_release_keep_the_ordering_key
        a_task_that_failed_holds_its_ordering_key_until_it_is_tried_again
        a_task_that_failed_goes_to_the_end_of_its_key_where_the_policy_skips
        a_delayed_task_stands_in_its_key_from_when_it_is_due
        a_blocked_task_is_cancelled_purged_and_dies_like_any_that_waits
        what_replaces_a_task_takes_its_place_in_its_key_anew
        a_redriven_task_stands_at_the_end_of_its_key
        a_blocked_task_says_which_task_holds_its_key
        one_batch_hands_a_key_on_as_often_as_it_ends_holds
        a_stale_holder_hands_nothing_on;
    limiting:
        a_limit_key_runs_no_more_tasks_than_its_rule_lets_it
        each_key_of_a_pattern_has_slots_of_its_own
        the_first_rule_that_matches_holds
        what_ends_a_hold_gives_the_slot_on
        an_expired_lease_and_a_release_keep_the_slot
        the_line_of_a_limit_goes_by_priority
        a_rule_that_comes_later_counts_who_runs_already
        a_higher_limit_and_none_let_the_line_through
        a_change_of_policy_lets_a_long_line_through_in_slices
        a_rate_of_a_key_lets_its_burst_through_and_tells_when_it_opens
        claims_that_come_late_and_all_at_once_stay_within_the_burst
        a_cost_takes_so_many_tokens_of_its_key
        purging_what_a_rate_let_through_leaves_the_next_at_once
        a_second_start_takes_a_second_token_and_goes_first
        what_a_task_used_in_truth_corrects_the_tokens_of_its_key
        a_task_that_waits_for_its_ordering_key_holds_no_slot
        a_task_at_a_full_limit_says_so
        the_policys_limits_and_those_of_keys_hold_together;
    fairness:
        a_backlog_of_one_key_delays_no_other_by_more_than_one_task
        many_keys_of_one_producer_gain_it_nothing_against_another
        keys_are_served_by_their_weights
        tasks_without_a_fairness_key_are_one_flow_among_the_others
        fairness_holds_inside_a_priority_only
        fairness_holds_behind_a_shared_limit
        a_released_task_comes_back_to_its_fair_place
        the_last_of_a_backlog_that_is_given_back_goes_before_what_came_later
        a_key_keeps_its_own_order;
    claiming:
        an_empty_queue_answers_no_task
        tasks_come_first_in_first_out
        a_higher_priority_comes_first
        fifo_holds_inside_each_priority
        a_claim_takes_at_most_what_it_asked_for
        a_claim_takes_what_there_is
        a_claimed_task_is_not_claimed_again
        two_claims_of_one_call_share_the_tasks_in_order
        a_claim_carries_worker_attempt_and_times
        concurrent_claims_never_share_a_task
        each_queue_has_tasks_of_its_own;
    leasing:
        a_completed_task_keeps_its_result
        a_completed_task_without_result_has_none
        completing_again_with_the_same_token_succeeds
        completing_again_does_not_replace_the_result
        a_stale_token_cannot_complete
        a_stale_token_cannot_fail_release_or_extend
        an_unknown_task_is_not_found
        a_task_that_was_never_claimed_is_not_held
        failing_after_completing_is_refused
        releasing_gives_the_original_place_back
        releasing_consumes_no_attempt
        releasing_with_a_delay_waits_and_takes_a_new_place
        releasing_again_with_the_same_token_succeeds
        a_release_is_fenced_once_somebody_else_claimed
        a_heartbeat_moves_the_end_of_the_lease
        a_heartbeat_without_length_uses_the_one_of_the_claim
        progress_is_kept_and_replaced
        a_heartbeat_after_completion_is_refused
        one_refusal_leaves_its_neighbours_alone
        operations_of_one_call_take_effect_in_order;
    retrying:
        a_failed_attempt_is_tried_again_after_its_delay
        a_retry_without_delay_is_ready_at_once_behind_the_others
        the_last_attempt_leaves_a_dead_letter_with_every_error
        a_non_retryable_failure_is_dead_at_once
        without_retention_of_dead_letters_it_ends_failed
        the_retry_policy_decides_the_delay
        jitter_shortens_by_the_same_rule_everywhere
        failing_again_with_the_same_token_answers_the_same
        an_error_comes_back_as_it_was_sent
        attempts_count_from_one_over_failures;
    timing:
        a_delayed_task_waits_for_its_time
        a_time_that_is_past_is_now
        next_due_tells_when_to_look_again
        next_due_tells_the_end_of_the_first_lease
        delayed_tasks_come_in_the_order_they_fall_due
        an_expired_lease_gives_the_task_to_another_in_its_place
        an_expired_holder_is_fenced
        expiries_consume_no_attempt_and_quarantine_at_their_limit
        a_heartbeat_keeps_a_lease_from_expiring
        cancelling_a_leased_task_takes_effect_when_its_lease_ends
        time_never_runs_backwards
        equal_due_times_keep_the_order_of_their_enqueues
        a_call_tells_which_tasks_it_ended;
    sizes:
        a_claim_stops_before_too_many_bytes_and_the_rest_stays
        one_task_beyond_the_byte_limit_is_still_claimed_alone
        the_claims_of_one_call_share_its_room
        attempts_and_progress_take_room_too
        an_existing_task_is_answered_without_what_may_be_large
        a_cancelled_task_is_answered_without_what_may_be_large;
    finding:
        counts_follow_every_change
        the_head_of_the_line_tells_since_when_it_is_ready
        ready_tells_how_many_are_left
        an_open_queue_keeps_its_number
        an_unknown_queue_is_not_found
        queues_are_listed_by_name_for_their_tenant_alone
        queues_are_listed_page_by_page
        many_shards_are_counted_at_once
        cancelling_a_queued_task_ends_it
        cancelling_a_delayed_task_ends_it
        cancelling_a_leased_task_asks_its_holder
        cancelling_a_finished_task_is_refused
        cancelling_an_unknown_task_is_not_found
        the_store_is_ready_and_says_what_it_is
        a_tenant_that_has_all_its_queues_leaves_room_for_others;
    keeping:
        a_completed_task_is_gone_when_its_retention_is_over
        a_dead_letter_is_kept_by_its_own_retention
        retention_is_swept_without_a_call
        who_waits_learns_the_end_of_a_task_that_is_not_kept
        a_remembered_end_answers_only_its_holder
        an_end_is_forgotten_after_a_while;
    pausing:
        a_paused_queue_hands_out_nothing_until_it_is_resumed
        a_paused_queue_takes_tasks_and_all_that_ends_leases
        a_pause_tells_since_when_by_whom_and_why
        resuming_a_queue_that_is_not_paused_changes_nothing
        a_pause_and_a_resume_take_effect_in_their_call
        what_falls_due_in_a_pause_waits_for_its_end
        a_pause_is_of_its_queue_alone;
    listing:
        ready_tasks_are_listed_in_line_order
        delayed_tasks_are_listed_by_when_they_are_due
        leased_tasks_are_listed_by_the_end_of_their_leases
        tasks_that_have_ended_are_listed_by_state_the_last_one_first
        tasks_that_ended_long_and_a_moment_ago_are_one_list
        a_list_goes_on_behind_its_cursor_whatever_comes_and_goes
        a_thousand_tasks_due_at_once_are_each_listed_once
        a_list_tells_as_much_of_each_task_as_was_asked_for
        a_page_stops_before_too_many_bytes
        a_task_past_its_retention_is_not_listed
        a_queue_without_tasks_has_empty_lists
        a_task_knows_how_many_stand_before_it
        a_task_keeps_what_happened_to_it;
    governing:
        a_policy_is_told_as_it_was_given
        a_queue_runs_no_more_tasks_than_its_limit
        whatever_ends_a_lease_makes_room_for_another
        a_lower_limit_takes_no_lease_away
        claims_of_one_call_share_limit_and_rate
        a_queue_starts_no_more_tasks_than_its_rate
        a_task_takes_as_many_tokens_as_it_costs
        a_task_above_the_burst_waits_for_a_full_bucket
        tokens_are_trued_up_when_a_task_completes
        what_a_task_does_not_say_its_queue_says
        a_queue_says_how_often_a_lease_may_expire
        a_queue_says_how_many_finished_tasks_are_kept
        a_queue_says_after_how_long_a_lower_priority_is_served
        of_two_low_priorities_that_waited_as_long_the_higher_is_served
        a_rate_holds_for_tasks_with_a_fairness_key
        what_the_next_pick_cannot_start_is_not_told_to_be_there
        another_rate_takes_over_what_is_owed_in_tokens;
    declaring:
        a_declaration_holds_until_a_later_one
        what_a_manifest_says_of_a_pause_counts_where_it_changes
        a_queue_that_a_manifest_has_no_longer_keeps_what_held
        a_declaration_without_a_mark_always_holds;
    deleting:
        a_queue_with_a_live_task_is_not_deleted
        a_deleted_queue_is_gone_with_all_that_was_kept
        a_deleted_queue_takes_no_call_under_its_number
        a_name_that_is_free_again_gives_another_number_each_time
        a_queue_that_was_never_used_can_be_deleted
        deletions_and_enqueues_at_once_lose_nothing;
    purging:
        a_purged_task_is_gone_with_all_that_is_known_of_it
        a_task_in_another_state_is_not_purged
        a_purged_end_is_remembered_for_its_holder_alone
        a_task_that_ended_long_ago_is_purged_at_once
        a_purged_task_gives_its_key_up
        purges_of_one_call_leave_each_other_alone
        a_redriven_task_begins_anew_behind_the_others
        a_redrive_with_a_delay_waits
        only_dead_letters_are_redriven
        the_holder_from_before_a_redrive_is_fenced
        a_redriven_task_can_die_and_be_redriven_again;
    scheduling:
        a_schedule_is_kept_as_it_was_given
        of_two_changes_of_one_version_one_succeeds
        schedules_are_listed_by_name_and_tenant
        a_schedule_is_due_when_its_time_has_come
        a_tenant_has_room_for_so_many_schedules_and_bytes
        a_tick_becomes_a_task_once
        a_tick_is_remembered_whatever_became_of_its_task
        another_schedule_of_a_name_has_ticks_of_its_own
        so_many_ticks_are_remembered;
    expiring:
        a_task_past_its_deadline_is_dead_and_not_handed_out
        a_deadline_passes_without_a_call
        a_delayed_task_dies_at_its_deadline_too
        who_holds_a_task_past_its_deadline_may_complete_it
        a_task_past_its_deadline_is_not_tried_again
        a_retry_that_waits_past_the_deadline_dies_at_it
        a_redrive_starts_the_deadline_anew
        without_retention_of_dead_letters_a_deadline_ends_failed
        of_a_thousand_tasks_past_their_deadlines_none_is_handed_out
        a_key_is_free_once_its_time_is_over
        a_key_that_was_given_anew_outlives_the_end_of_the_first_task;
}

cases! {
    wakeups in wakeup_cases:
    waking:
        an_enqueue_wakes_every_server_that_listens
        a_delay_tells_when_it_falls_due
        a_retry_and_a_release_tell_when_they_fall_due
        a_lease_tells_when_it_ends
        a_later_time_is_not_told
        a_queue_that_opens_is_told
        a_queue_that_is_deleted_is_told
        a_queue_that_nobody_asked_for_wakes_nobody
        a_resume_wakes_every_server_that_listens
        room_under_a_limit_wakes_every_server_that_listens
        a_token_tells_when_it_comes;
}
