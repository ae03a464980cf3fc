//! A stand-in for Flow on tiny_http, an HTTP implementation that is not ours. It rejects a wrong
//! token as LiteLLM does; otherwise a closure answers.

use std::collections::HashMap;
use std::io::Cursor;
use std::ops::Deref;
use std::sync::Arc;

use super::{SeenRequest, Upstream};

/// Requests that are read at the same time.
const THREADS: usize = 8;

/// A response of the upstream.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Sent in chunked coding, without a Content-Length.
    pub chunked: bool,
}

impl Answer {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Answer {
        Answer {
            status,
            headers: vec![],
            body: body.into(),
            chunked: false,
        }
    }

    pub fn ok() -> Answer {
        Answer::new(200, r#"{"ok":true}"#).header("Content-Type", "application/json")
    }

    /// Rejects a credential in the form of LiteLLM.
    pub fn unauthorized() -> Answer {
        let body = r#"{"error":{"message":"Authentication Error","type":"auth_error","param":"None","code":"401"}}"#;
        Answer::new(401, body).header("Content-Type", "application/json")
    }

    /// Answers with an error in the form that LiteLLM gives it in both dialects.
    pub fn error(status: u16, kind: &str, message: &str) -> Answer {
        let error = serde_json::json!({"type": kind, "message": message, "param": "None"});
        let body = serde_json::json!({ "error": error }).to_string();
        Answer::new(status, body).header("Content-Type", "application/json")
    }

    pub fn limited(retry_after: Option<&str>) -> Answer {
        let answer = Answer::new(429, r#"{"error":{"message":"Rate limited","code":"429"}}"#);
        match retry_after {
            Some(value) => answer.header("Retry-After", value),
            None => answer,
        }
    }

    pub fn header(mut self, name: &str, value: &str) -> Answer {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn chunked(mut self) -> Answer {
        self.chunked = true;
        self
    }
}

/// The running stand-in; ends on drop.
pub struct FakeFlow {
    server: Arc<tiny_http::Server>,
    upstream: Upstream,
}

impl FakeFlow {
    /// Answers every correctly signed request with 200.
    pub fn start() -> FakeFlow {
        FakeFlow::answering(|_| Answer::ok())
    }

    /// Answers every correctly signed request with what `answer` makes of it.
    pub fn answering(answer: impl Fn(&SeenRequest) -> Answer + Send + Sync + 'static) -> FakeFlow {
        let server = Arc::new(tiny_http::Server::http("127.0.0.1:0").expect("a loopback port"));
        let upstream = Upstream::at(server.server_addr().to_ip().expect("an IP listener"));
        let answer = Arc::new(answer);
        for _ in 0..THREADS {
            let (server, upstream, answer) =
                (Arc::clone(&server), upstream.clone(), Arc::clone(&answer));
            std::thread::spawn(move || {
                while let Ok(request) = server.recv() {
                    serve(request, &upstream, &*answer);
                }
            });
        }
        FakeFlow { server, upstream }
    }

    /// Answers each client id in its own way, with 200 where none is given.
    pub fn answering_by_client(answers: &[(&str, Answer)]) -> FakeFlow {
        let answers: HashMap<String, Answer> = answers
            .iter()
            .map(|(id, answer)| ((*id).to_owned(), answer.clone()))
            .collect();
        FakeFlow::answering(move |request| {
            let answer = answers.get(&request.client_id());
            answer.cloned().unwrap_or_else(Answer::ok)
        })
    }

    /// Answers each request with the status in which its target ends.
    pub fn answering_the_status_asked_for(body: &'static str) -> FakeFlow {
        FakeFlow::answering(move |request| {
            let status = request.target.rsplit('/').next().expect("a segment");
            Answer::new(status.parse().expect("a status"), body)
        })
    }
}

impl Deref for FakeFlow {
    type Target = Upstream;

    fn deref(&self) -> &Upstream {
        &self.upstream
    }
}

impl Drop for FakeFlow {
    fn drop(&mut self) {
        for _ in 0..THREADS {
            self.server.unblock();
        }
    }
}

fn serve(
    mut request: tiny_http::Request,
    upstream: &Upstream,
    answer: &dyn Fn(&SeenRequest) -> Answer,
) {
    let mut body = Vec::new();
    let declared = request.body_length().unwrap_or(0);
    if request.as_reader().read_to_end(&mut body).is_err() || body.len() < declared {
        return; // the proxy broke off: not a request
    }
    let headers = request.headers().iter();
    let headers = headers.map(|h| (h.field.as_str().to_string(), h.value.as_str().to_owned()));
    let request_seen = SeenRequest {
        method: request.method().to_string(),
        target: request.url().to_owned(),
        version: format!("HTTP/{}", request.http_version()),
        headers: headers.collect(),
        body,
    };
    upstream.record(request_seen.clone());
    let answer = match request_seen.verified_client_id() {
        Some(_) => answer(&request_seen),
        None => Answer::unauthorized(),
    };
    let headers = answer.headers.iter();
    let headers = headers.map(|(name, value)| {
        tiny_http::Header::from_bytes(name.as_bytes(), value.as_bytes()).expect("a valid header")
    });
    let length = (!answer.chunked).then_some(answer.body.len());
    let response = tiny_http::Response::new(
        tiny_http::StatusCode(answer.status),
        headers.collect(),
        Cursor::new(answer.body),
        length,
        None,
    );
    let _ = request.respond(response.with_chunked_threshold(usize::MAX));
}
