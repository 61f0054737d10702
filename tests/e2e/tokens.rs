//! Passwords, tokens, scopes and TLS with a private CA at a real peer, asked by curl and by ctl as people do.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cluster_tests::process::{NodeKind, ProcessCluster, START_LIMIT, binary};
use cluster_tests::wait;
use serde_json::{Value, json};

const CID: &str = "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH";
/// `dan`'s password is `swordfish` (bcrypt, by crypt(3)).
const HASH: &str = "$2y$04$uTqFi5MSAxCMWKFTk8z4X.xubf0BVe0j7pZX/p9tLwLwf9mtdIIO2";
/// Signed by the password `swordfish`, by another program: HS512; the end in the year 2001; `none`; and, with the key of
/// another user, for `ann`.
const MADE: [(&str, &str, u16); 5] = [
    (
        "HS512",
        "eyJhbGciOiJIUzUxMiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJhbm4ifQ.kqMRC3Uis3sbfCbY0-0rR4jU26Ya0mX4clGFCfGceKUeVId4VL6PnxSaLkXsmOir3BL77TJREHmGsi7LRIA2vQ",
        200,
    ),
    (
        "expired",
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJhbm4iLCJleHAiOjEwMDAwMDAwMDB9.Cm981F2Z0l_zmH8Kmgf0p1e2GdFVYeMhj6TBVRQ5z7M",
        401,
    ),
    ("none", "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJpc3MiOiJhbm4ifQ.", 401),
    (
        "ES256",
        "eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJhbm4ifQ.kHo2-D13NE70K9r8OKkwCo16iLDKQWG_fOcY1oJ3_jM",
        401,
    ),
    (
        "the key of another user",
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJhbm4ifQ.l78IfiwO5Hp_O-BaMmmqt7Wof62vM1ZQNUF3upFjIzs",
        401,
    ),
];

/// A peer behind TLS, and what it takes to reach it.
struct Guarded {
    cluster: ProcessCluster,
    peer: usize,
    authority: PathBuf,
}

/// What a program said, and whether it worked.
struct Ran {
    worked: bool,
    said: String,
}

fn ran(command: &mut Command) -> Ran {
    let ran = command.env_remove("CLUSTER_CREDENTIALS").env_remove("CLUSTER_TOKEN").output().unwrap();
    let said = [ran.stdout, ran.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    Ran { worked: ran.status.success(), said }
}

impl Guarded {
    /// A peer with the users of [`configure`], that answers.
    async fn start() -> Self {
        let mut cluster = ProcessCluster::empty().unwrap();
        let peer = cluster.make_peer(&NodeKind::Embedded).unwrap();
        let authority = certify(&cluster.peers[peer].folder);
        configure(&cluster.peers[peer].folder);
        cluster.set_variable(peer, "CLUSTER_RESTAPI_SSLCERTFILE", "cert.pem");
        cluster.set_variable(peer, "CLUSTER_RESTAPI_SSLKEYFILE", "key.pem");
        let guarded = Self { cluster, peer, authority };
        guarded.restart().await;
        guarded
    }

    async fn restart(&self) {
        self.cluster.spawn_peer(self.peer).unwrap();
        wait::until("the peer to answer", START_LIMIT, || async {
            self.cluster.check_alive(self.peer).unwrap();
            let (code, said) = self.curl("GET", "/state?consistency=linearizable", &["-u", "ann:swordfish"]);
            if code == 200 { Ok(()) } else { Err(said) }
        })
        .await;
    }

    /// Asks with curl; the status, and the body.
    fn curl(&self, method: &str, path: &str, flags: &[&str]) -> (u16, String) {
        let url = format!("https://127.0.0.1:{}{path}", self.cluster.api_port(self.peer));
        let mut curl = Command::new("curl");
        curl.args(["-sS", "-m", "30", "-w", "\n%{http_code}", "-X", method, "--cacert"]).arg(&self.authority);
        let said = ran(curl.args(flags).arg(url)).said;
        let (body, code) = said.trim_end().rsplit_once('\n').unwrap_or(("", &said));
        (code.parse().unwrap_or_default(), body.to_owned())
    }

    fn with_token(&self, method: &str, path: &str, token: &str) -> u16 {
        self.curl(method, path, &["-H", &format!("Authorization: Bearer {token}")]).0
    }

    /// Asks for a token.
    fn token(&self, query: &str, user: &str) -> String {
        let (code, body) = self.curl("POST", &format!("/token{query}"), &["-u", user]);
        assert_eq!(code, 200, "{body}");
        let body: Value = serde_json::from_str(&body).unwrap();
        body["token"].as_str().unwrap().to_owned()
    }

    fn ctl(&self, flags: &[&str]) -> Ran {
        let host = self.cluster.api_address(self.peer);
        let mut ctl = Command::new(binary("ipfs-cluster-ctl").unwrap());
        ran(ctl.args(["--host", &host, "--ca-cert"]).arg(&self.authority).args(flags))
    }
}

/// Writes a certificate for 127.0.0.1 and its key into `folder`; where that of the authority is that signed it.
fn certify(folder: &Path) -> PathBuf {
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    // Of equal names the one would seem to be signed by itself.
    authority.distinguished_name.push(rcgen::DnType::CommonName, "the authority of this test");
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let authority = authority.self_signed(&authority_key).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let server = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let server = server.signed_by(&key, &authority, &authority_key).unwrap();
    fs::write(folder.join("cert.pem"), server.pem()).unwrap();
    fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
    let path = folder.join("authority.pem");
    fs::write(&path, authority.pem()).unwrap();
    path
}

/// `ann` may do everything, `bob` only look; `dan` has a hash.
fn configure(folder: &Path) {
    let path = folder.join("service.json");
    let mut file: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let users = json!({"ann": "swordfish", "bob": "looks", "dan": HASH});
    file["api"]["restapi"]["basic_auth_credentials"] = users;
    file["api"]["restapi"]["basic_auth_scopes"] = json!({"bob": ["read"]});
    fs::write(&path, file.to_string()).unwrap();
}

/// Whether curl is there; tells if not.
fn has_curl() -> bool {
    let found = Command::new("curl").arg("--version").output().is_ok();
    if !found {
        println!("skipped: no curl on PATH");
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_and_ctl_get_in_with_what_counts_and_with_nothing_else() {
    if !has_curl() {
        return;
    }
    let guarded = Guarded::start().await;
    let pin = format!("/pins/{CID}");
    // Only who trusts the authority, and only over TLS.
    let url = |scheme: &str| format!("{scheme}://127.0.0.1:{}/id", guarded.cluster.api_port(guarded.peer));
    for (scheme, text) in [("https", "certificate"), ("http", "")] {
        let answer = ran(Command::new("curl").args(["-sS", "-m", "30", "-u", "ann:swordfish", &url(scheme)]));
        assert!(!answer.worked && answer.said.to_lowercase().contains(text), "{}", answer.said);
    }
    for (user, method, path, code) in [
        ("ann:swordfish", "GET", "/id", 200),
        ("dan:swordfish", "GET", "/id", 200),
        ("bob:looks", "GET", "/id", 200),
        ("ann:other", "GET", "/id", 401),
        ("nobody:swordfish", "GET", "/id", 401),
        ("bob:looks", "DELETE", &pin, 403),
        ("dan:swordfish", "DELETE", &pin, 404),
        ("bob:looks", "POST", "/ipfs/gc", 403),
    ] {
        assert_eq!(guarded.curl(method, path, &["-u", user]).0, code, "{user} {method} {path}");
    }
    for (why, token, code) in MADE {
        assert_eq!(guarded.with_token("GET", "/id", token), code, "{why}");
        let answer = guarded.ctl(&["--token", token, "id"]);
        let refused = answer.said.contains("unauthorized: invalid token");
        assert!(answer.worked == (code == 200) && refused != answer.worked, "{why}: {}", answer.said);
    }
    let token = guarded.token("", "dan:swordfish");
    assert_eq!(guarded.with_token("GET", "/id", &token), 200);
    assert_eq!(guarded.with_token("GET", "/id", &token.replace('.', ".x")), 401, "tampered");
    let narrow = guarded.ctl(&["--basic-auth", "ann:swordfish", "token", "--scope", "read", "--expire-in", "1h"]);
    assert!(narrow.worked, "{}", narrow.said);
    let narrow = narrow.said.trim().to_owned();
    assert_eq!([guarded.with_token("GET", "/pins", &narrow), guarded.with_token("DELETE", &pin, &narrow)], [204, 403]);
    assert!(guarded.ctl(&["--token", &narrow, "peers", "ls"]).worked);
    let refused = guarded.ctl(&["--token", &narrow, "pin", "rm", CID]);
    assert!(!refused.worked && refused.said.contains("forbidden: this needs the scope pin"), "{}", refused.said);
    let bare = guarded.ctl(&["--https", "id"]);
    assert!(!bare.worked && bare.said.contains("unauthorized: no auth provided"), "{}", bare.said);

    assert_eq!(guarded.cluster.stop(guarded.peer).await.unwrap(), Some(0));
    let log = guarded.cluster.log(guarded.peer);
    let is_named = log.lines().any(|line| line.contains("/id") && line.contains("dan"));
    assert!(is_named, "requests are logged with their users: {log}");
    assert!([&token, &narrow, HASH, "swordfish"].iter().all(|secret| !log.contains(*secret)), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_revoked_stays_so_and_the_peer_still_answers_its_own_tools() {
    if !has_curl() {
        return;
    }
    let guarded = Guarded::start().await;
    let (user, other) = ("ann:swordfish", "dan:swordfish");
    let old = [guarded.token("", user), guarded.token("?expire-in=1h", user)];
    let of_other = guarded.token("", other);
    for token in old.iter().chain([&of_other]) {
        assert_eq!(guarded.with_token("GET", "/id", token), 200, "{token}");
    }
    assert_eq!(guarded.with_token("DELETE", "/token", &old[0]), 204);
    let new = guarded.token("", user);
    for killed in [false, true] {
        if killed {
            guarded.cluster.kill(guarded.peer).unwrap();
            guarded.restart().await;
        }
        for token in &old {
            assert_eq!(guarded.with_token("GET", "/id", token), 401, "{token}");
            let answer = guarded.ctl(&["--token", token, "id"]);
            assert!(!answer.worked && answer.said.contains("unauthorized: invalid token"), "{}", answer.said);
        }
        for token in [&new, &of_other] {
            assert!(guarded.ctl(&["--token", token, "id"]).worked, "{token}");
        }
        assert!(guarded.ctl(&["--basic-auth", user, "id"]).worked);
        // It asks as `ann`, whose tokens must say when they were made.
        let export = ran(&mut guarded.cluster.tool(guarded.peer, &["state", "export"]).unwrap());
        assert!(export.worked, "{}", export.said);
    }
    assert_eq!(guarded.cluster.stop(guarded.peer).await.unwrap(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_listens_for_everyone_by_accident() {
    let mut cluster = ProcessCluster::empty().unwrap();
    let peer = cluster.make_peer(&NodeKind::Embedded).unwrap();
    let address = format!("/ip4/0.0.0.0/tcp/{}", cluster.api_port(peer));
    cluster.set_variable(peer, "CLUSTER_RESTAPI_HTTPLISTENMULTIADDRESS", &address);
    let said = cluster.refused_start(peer, &[], &[]).await.unwrap();
    for text in ["api.restapi.http_listen_multiaddress", "CLUSTER_RESTAPI_ALLOWUNAUTHENTICATED=true"] {
        assert!(said.contains(text), "{said}");
    }
    cluster.set_variable(peer, "CLUSTER_RESTAPI_ALLOWUNAUTHENTICATED", "true");
    cluster.start_peer(peer).await.unwrap();
    assert!(cluster.log(peer).contains("everyone who can reach"), "{}", cluster.log(peer));
    assert_eq!(cluster.stop(peer).await.unwrap(), Some(0));
}
