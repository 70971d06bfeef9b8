//! Every bound a caller can meet, with its unit in its name. The HTTP documentation quotes these.

/// Largest head of a request (first line and fields), bytes.
pub const HEAD_MAX_BYTES: usize = 16 * 1024;
/// Most fields in a head. The HTTP library has this bound in a fixed table.
pub const HEAD_MAX_FIELDS: usize = 100;
/// Largest request body, bytes.
pub const BODY_MAX_BYTES: usize = 8 * 1024 * 1024;
/// A body up to here is read however many bytes are in flight: the number of connections bounds them, and what frees memory
/// (complete, heartbeat) is small and goes on.
pub const BODY_SMALL_MAX_BYTES: usize = 4 * 1024;
/// Largest payload of a task, bytes of JSON as sent.
pub const PAYLOAD_MAX_BYTES: usize = 1024 * 1024;
/// Largest result of a task, bytes of JSON as sent.
pub const RESULT_MAX_BYTES: usize = 1024 * 1024;
/// Largest `progress` of a heartbeat, bytes of JSON as sent.
pub const PROGRESS_MAX_BYTES: usize = 16 * 1024;
/// Bytes that are kept of the `message` of a task error; the rest is cut off.
pub const ERROR_MESSAGE_MAX_BYTES: usize = 4 * 1024;
/// Bytes that are kept of the `kind` of a task error; the rest is cut off.
pub const ERROR_KIND_MAX_BYTES: usize = 128;
/// Largest `detail` of a task error that is kept as it was sent, bytes of JSON.
pub const ERROR_DETAIL_MAX_BYTES: usize = 16 * 1024;
/// Longest reason of a pause.
pub const PAUSE_REASON_MAX_BYTES: usize = 1_024;
/// Most tasks of one page of a list.
pub const LIST_MAX_TASKS: usize = 1_000;
/// Tasks that one store call looks at for a page: a list of a rare state comes in pages that are not full.
pub const LIST_LOOKED_AT_MAX: usize = 1_000;
/// Most tasks of one redrive, and how many it takes that names no limit. Matches are counted up to the first.
pub const REDRIVE_MAX_TASKS: u64 = 10_000;
pub const REDRIVE_DEFAULT_TASKS: u64 = 1_000;
/// Tasks of a page of a list that names no limit.
pub const LIST_DEFAULT_TASKS: usize = 100;
/// Most items in one batch request.
pub const BATCH_MAX_ITEMS: usize = 1_000;
/// Longest queue name.
pub const QUEUE_NAME_MAX_BYTES: usize = 80;
/// Longest tenant name.
pub const TENANT_NAME_MAX_BYTES: usize = 63;
/// Longest worker name.
pub const WORKER_NAME_MAX_BYTES: usize = 128;
/// Longest idempotency key.
pub const IDEMPOTENCY_KEY_MAX_BYTES: usize = 256;
/// Longest `orderingKey`, `limitKey` and `fairnessKey`.
pub const TASK_KEY_MAX_BYTES: usize = 256;
/// Most rules of a queue for the limits of its keys.
pub const KEY_RULES_MAX: usize = 64;
/// Most weights of a queue for its fairness keys.
pub const WEIGHTS_MAX: usize = 256;
/// Largest weight of a fairness key.
pub const WEIGHT_MAX: u16 = 256;
/// Most tasks that one call lets through gates which time or a change of policy has opened; the next call, or the sweep, goes on.
pub const ADMITTED_AT_A_TIME_MAX: usize = 256;
/// Most tasks one claim can take.
pub const CLAIM_MAX_TASKS: u16 = 256;
/// Most queues that one claim takes from: a claim that waits stands in line in each of them.
pub const CLAIM_MAX_QUEUES: usize = 64;
/// Largest weight of a queue among those of a claim.
pub const CLAIM_WEIGHT_MAX: u64 = 256;
/// Most payload bytes one claim hands out; the rest stays for the next claim. One task always fits.
pub const CLAIM_MAX_BYTES: usize = 16 * 1024 * 1024;
/// Shortest lease.
pub const LEASE_MIN_MS: u64 = 1_000;
/// Longest lease: half a day.
pub const LEASE_MAX_MS: u64 = 43_200_000;
/// Lease when the claim names none.
pub const LEASE_DEFAULT_MS: u64 = 30_000;
/// Longest wait of a claim or of a result.
pub const WAIT_MAX_MS: u64 = 60_000;
/// Longest delay of a task, a retry or a release: a year.
pub const DELAY_MAX_MS: u64 = 31_536_000_000;
/// Longest deadline of a task, and longest hold of an idempotency key: a year.
pub const DEADLINE_MAX_MS: u64 = 31_536_000_000;
/// Attempts when the task names none.
pub const ATTEMPTS_DEFAULT: u32 = 5;
/// Most attempts a task can ask for.
pub const ATTEMPTS_MAX: u32 = 100;
/// Failed attempts and other events that are kept of a task; beyond, the oldest go.
pub const HISTORY_MAX: usize = 200;
/// Tasks that an explanation counts before one in line; beyond, it says "at least".
pub const POSITION_MAX: u64 = 10_000;
/// Longest that a queue can make a lower priority wait: a day.
pub const AGING_MAX_MS: u64 = 86_400_000;
/// Most lease expiries that a queue can allow a task.
pub const EXPIRIES_ALLOWED_MAX: u64 = 100;
/// Largest bound of leases at a time that a queue can ask for.
pub const IN_FLIGHT_MAX: u32 = 1_000_000;
/// Largest rate of a queue, in thousandths of a start a second: a million a second.
pub const RATE_MAX_MILLI: u64 = 1_000_000_000;
/// Largest burst of a rate, and largest cost of a task, in tokens.
pub const BURST_MAX: u32 = 1_000_000;
/// Lease expiries after which a task is quarantined, because it seems to kill its workers.
pub const EXPIRIES_MAX: u32 = 5;
/// Most entries of a retry policy's list of delays.
pub const RETRY_DELAYS_MAX: usize = 32;
/// How long a completed or cancelled task is kept when it names no retention.
pub const RETENTION_COMPLETED_DEFAULT_MS: u64 = 3_600_000;
/// How long a dead task is kept when it names no retention: 14 days.
pub const RETENTION_DEAD_DEFAULT_MS: u64 = 1_209_600_000;
/// Longest retention: a year.
pub const RETENTION_MAX_MS: u64 = 31_536_000_000;
/// Most completed and cancelled tasks kept in one shard, whatever their retention.
pub const COMPLETED_KEPT_MAX: u64 = 200_000;
/// Most due delays, expired leases or expired records that one store call moves, so that no call is long.
pub const SWEEP_SLICE: usize = 256;
/// How long the end of a lease is remembered whatever the task's retention: for repeats, and for who waits for the result.
pub const REMEMBERED_MS: u64 = 2_000;
/// How long the head of a lower band waits before it is picked out of turn.
pub const AGING_MS: u64 = 60_000;
/// Of so many picks, one takes the oldest head of a lower band that has waited for [`AGING_MS`].
pub const AGING_PICKS: u64 = 8;
/// Most bytes of payloads, attempts, results and progress in the answer of one store call: later claims of the call get
/// fewer tasks. One task always fits.
pub const ANSWER_MAX_BYTES: usize = 32 * 1024 * 1024;
/// Most bytes of request bodies, and of operations that the store has not answered, in one process; beyond, `overloaded`.
pub const BODIES_IN_FLIGHT_MAX_BYTES: usize = 128 * 1024 * 1024;
/// Most bytes of answers that are not handed to their sockets yet, in one process: a claim beyond it gets fewer tasks.
pub const ANSWERS_IN_FLIGHT_MAX_BYTES: usize = 128 * 1024 * 1024;
/// Most bytes of operations that wait for one queue's next store call.
pub const LANE_PENDING_MAX_BYTES: usize = 32 * 1024 * 1024;
/// Longest that a call waits for its store; beyond, `store_unavailable`. Tasks that it claims after that are given back.
pub const STORE_ANSWER_MAX_MS: u64 = 30_000;
/// Most queues of one tenant.
pub const QUEUES_PER_TENANT_MAX: u32 = 10_000;
/// Most queues that a manifest declares.
pub const DECLARED_QUEUES_MAX: usize = 200;
/// Most bytes of the queues that a manifest declares, as JSON: with all else they fit the 1 MiB of a ConfigMap.
pub const DECLARED_MAX_BYTES: usize = 512 * 1024;
/// Most queues of one store.
pub const QUEUES_MAX: u32 = 100_000;
/// Longest name of a schedule.
pub const SCHEDULE_NAME_MAX_BYTES: usize = 80;
/// Largest schedule, bytes of JSON as it is kept, its task's payload included.
pub const SCHEDULE_MAX_BYTES: usize = 64 * 1024;
/// Most schedules of one tenant, and most bytes of them.
pub const SCHEDULES_PER_TENANT_MAX: u32 = 1_000;
pub const SCHEDULES_PER_TENANT_MAX_BYTES: u64 = 16 * 1024 * 1024;
/// A schedule that is there may grow by this much beyond its tenant's bound: what came of its ticks is always written.
pub const SCHEDULE_GROWS_BYTES: u64 = 1024;
/// Most schedules of one store.
pub const SCHEDULES_MAX: u32 = 10_000;
/// Most schedules of one page of a list.
pub const SCHEDULES_LIST_MAX: usize = 100;
/// Most due schedules that a server takes at a time.
pub const SCHEDULES_DUE_MAX: usize = 50;
/// Most ticks of a schedule that one look fires; with `missed: all` the next look goes on.
pub const TICKS_AT_A_TIME_MAX: usize = 100;
/// A tick that is fired later than this is a missed one, ms.
pub const TICK_MISSED_AFTER_MS: u64 = 60_000;
/// Schedules whose last tick a queue remembers, so that it is fired once; beyond, the oldest half is forgotten.
pub const TICKS_REMEMBERED_MAX: usize = 2_000;
