//! A registry on loopback that counts, breaks, lies and asks for passwords.

use std::{
    collections::{BTreeMap, HashMap},
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

use super::images::TestImage;

#[derive(Clone)]
pub struct Registry {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// `name:tag` → digest
    tags: BTreeMap<String, String>,
    blobs: BTreeMap<String, (String, Vec<u8>)>,
    /// `METHOD path`, in order.
    requests: Vec<String>,
    /// Digest → after how many bytes the connection breaks, once for each entry.
    breaks: HashMap<String, Vec<usize>>,
    ignores_ranges: bool,
    /// Wants this user and password, exchanged for a token.
    password: Option<String>,
    basic: bool,
    /// Where blobs are, if not here.
    blobs_at: Option<SocketAddr>,
    refuses_head: bool,
    served: HashMap<String, usize>,
    authorized: usize,
}

impl Registry {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let registry = Self { address: listener.local_addr().unwrap(), state: Arc::default() };
        let serving = registry.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let registry = serving.clone();
                std::thread::spawn(move || registry.serve(stream));
            }
        });
        registry
    }

    pub fn push(&self, name: &str, image: &TestImage) {
        let mut state = self.state.lock().unwrap();
        state.tags.insert(name.into(), image.index.clone());
        state.blobs.extend(image.blobs.clone());
    }

    pub fn remove_tag(&self, name: &str) {
        self.state.lock().unwrap().tags.remove(name);
    }

    /// Serves other bytes of the same length under the digest.
    pub fn corrupt(&self, digest: &str) {
        let mut state = self.state.lock().unwrap();
        let (_, bytes) = state.blobs.get_mut(digest).unwrap();
        let last = bytes.last_mut().unwrap();
        *last ^= 0xff;
    }

    pub fn break_after(&self, digest: &str, bytes: &[usize]) {
        self.state.lock().unwrap().breaks.insert(digest.into(), bytes.to_vec());
    }

    pub fn ignore_ranges(&self) {
        self.state.lock().unwrap().ignores_ranges = true;
    }

    pub fn require_token(&self, user_and_password: &str) {
        self.state.lock().unwrap().password = Some(user_and_password.into());
    }

    pub fn require_basic(&self, user_and_password: &str) {
        self.require_token(user_and_password);
        self.state.lock().unwrap().basic = true;
    }

    pub fn redirect_blobs(&self, to: &Self) {
        self.state.lock().unwrap().blobs_at = Some(to.address);
    }

    pub fn refuse_head(&self) {
        self.state.lock().unwrap().refuses_head = true;
    }

    /// How many bytes of the blob went out.
    pub fn served(&self, digest: &str) -> usize {
        self.state.lock().unwrap().served.get(digest).copied().unwrap_or(0)
    }

    /// How many requests showed who is asking.
    pub fn authorized(&self) -> usize {
        self.state.lock().unwrap().authorized
    }

    /// How many requests there were whose method and path contain `text`.
    pub fn count(&self, text: &str) -> usize {
        self.state.lock().unwrap().requests.iter().filter(|request| request.contains(text)).count()
    }

    pub fn name(&self, repository: &str) -> String {
        format!("{}/{repository}", self.address)
    }

    fn serve(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        while let Some((request, headers)) = read_request(&mut reader) {
            if self.answer(&mut &stream, &request, &headers).is_none() {
                let _ = stream.shutdown(std::net::Shutdown::Both);
                return;
            }
        }
    }

    /// `None`: the connection must be closed.
    fn answer(&self, out: &mut impl Write, request: &str, headers: &HashMap<String, String>) -> Option<()> {
        let mut state = self.state.lock().unwrap();
        state.requests.push(request.to_owned());
        let (method, path) = request.split_once(' ')?;
        let head = method == "HEAD";
        state.authorized += usize::from(headers.contains_key("authorization"));
        if head && state.refuses_head {
            return respond(out, "405 Method Not Allowed", "", b"", head);
        }
        if let Some(refusal) = self.refusal(&state, path, headers) {
            return respond(out, &refusal.0, &refusal.1, refusal.2.as_bytes(), head);
        }
        if path.starts_with("/token") {
            return respond(out, "200 OK", "", br#"{"token":"opened","expires_in":300}"#, head);
        }
        let parts: Vec<&str> = path.strip_prefix("/v2/")?.rsplitn(3, '/').collect();
        let [version, kind, repository] = parts.as_slice() else { return None };
        if let Some(address) = state.blobs_at.filter(|_| *kind == "blobs") {
            let location = format!("Location: http://{address}{path}\r\n");
            return respond(out, "307 Temporary Redirect", &location, b"", head);
        }
        let digest = match state.tags.get(&format!("{repository}:{version}")) {
            Some(digest) if *kind == "manifests" => digest.clone(),
            _ => (*version).to_owned(),
        };
        let Some((media_type, bytes)) = state.blobs.get(&digest).cloned() else {
            let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
            return respond(out, "404 Not Found", "", body, head);
        };
        let start =
            headers.get("range").and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
        let start = start.filter(|_| !state.ignores_ranges);
        let status = if start.is_some() { "206 Partial Content" } else { "200 OK" };
        let body = bytes.get(start.unwrap_or(0)..)?;
        let about = format!("Content-Type: {media_type}\r\nDocker-Content-Digest: {digest}\r\n");
        let breaks = state
            .breaks
            .get_mut(&digest)
            .filter(|_| !head)
            .and_then(|all| (!all.is_empty()).then(|| all.remove(0)));
        if !head {
            let count = breaks.unwrap_or(body.len()).min(body.len());
            *state.served.entry(digest.clone()).or_default() += count;
        }
        drop(state);
        if let Some(after) = breaks {
            write!(out, "HTTP/1.1 {status}\r\n{about}Content-Length: {}\r\n\r\n", body.len()).ok()?;
            let _ = out.write_all(body.get(..after).unwrap_or(body));
            return None;
        }
        respond(out, status, &about, body, head)
    }

    fn refusal(
        &self,
        state: &State,
        path: &str,
        headers: &HashMap<String, String>,
    ) -> Option<(String, String, String)> {
        use base64::{Engine, engine::general_purpose::STANDARD};
        let wanted = format!("Basic {}", STANDARD.encode(state.password.as_ref()?));
        let given = headers.get("authorization").map(String::as_str);
        let is_token = path.starts_with("/token");
        let open =
            if state.basic || is_token { given == Some(&wanted) } else { given == Some("Bearer opened") };
        let challenge = if state.basic || is_token {
            "WWW-Authenticate: Basic realm=\"test\"\r\n".to_owned()
        } else {
            format!("WWW-Authenticate: Bearer realm=\"http://{}/token\",service=\"test\"\r\n", self.address)
        };
        let body = r#"{"errors":[{"code":"UNAUTHORIZED","message":"who are you"}]}"#;
        (!open).then(|| ("401 Unauthorized".into(), challenge, body.into()))
    }
}

fn read_request(reader: &mut impl BufRead) -> Option<(String, HashMap<String, String>)> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
    let request = line.rsplit_once(" HTTP/")?.0.to_owned();
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.insert(name.to_lowercase(), value.to_owned()),
            None => return Some((request, headers)),
        };
    }
}

fn respond(out: &mut impl Write, status: &str, headers: &str, body: &[u8], head: bool) -> Option<()> {
    write!(out, "HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n", body.len()).ok()?;
    if head { Some(()) } else { out.write_all(body).ok() }
}
