//! What the black-box tests share. Nothing here uses the library: what a test says about the proxy
//! it has seen on a socket, in the log or in `/proc`.

pub mod attack;
mod clock;
mod credentials;
pub mod echo;
mod fake_flow;
mod headers;
mod jwt;
mod log_lines;
mod machine;
mod messages;
mod packed;
mod proxy_process;
mod pseudo_terminal;
mod raw_client;
mod raw_upstream;
mod rejection;
mod response;
mod seen;
mod streams;
mod temp_dir;
mod tls;
mod waits;
mod work_dir;

pub use clock::http_date;
pub use credentials::{
    ask_for, available, clients_for, credential, credentials, next_clients, start_proxy,
};
pub use fake_flow::{Answer, FakeFlow};
pub use jwt::{expected_token, verified_client_id};
pub use log_lines::{AccessLine, rejections_counted};
pub use machine::{ClosedPort, hold_machine, raise_descriptor_limit};
pub use messages::{
    CHUNKED_HEAD, CHUNKED_POST_HEAD, EMPTY_OK, GET_REQUEST, HELD_BODY_LIMIT_BYTES, KIB_PER_MIB,
    MIB, OK, POST_START, SSE_HEAD, chunk, chunked, expecting_post_head, patterned_bytes, post_head,
};
pub use packed::packed;
pub use proxy_process::{ProxyBuilder, ProxyProcess};
pub use pseudo_terminal::pseudo_terminal;
pub use raw_client::{RawClient, get, post, send_and_read};
pub use raw_upstream::{Commands, RawUpstream, UpstreamConnection};
pub use rejection::{SMUGGLED, assert_bad_request, assert_error_and_close, assert_rejected_with};
pub use response::{Ended, Framing, Response};
pub use seen::{SeenRequest, Upstream};
pub use streams::{start_request, start_stream};
pub use temp_dir::TempDir;
pub use tls::{tls_server, tls_server_of_many};
pub use waits::{SOON, SetOnDrop, wait_for, wait_until};
pub use work_dir::{Finished, WorkDir};
