//! What runs in this process, for the demo to steer.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use brisq_profiler::Profiler;
use brisq_recorder::ClaimLog;

use crate::board::Board;

pub struct Stage {
    pub listen: SocketAddr,
    pub data: PathBuf,
    pub claims: Arc<ClaimLog>,
    pub profiler: Profiler,
    pub board: Board,
}
