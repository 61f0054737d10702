//! Who may use the REST API, and when the start is refused because nobody said.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use cluster_api::{Scope, Scopes};
use cluster_types::ErrorChain;
use serde_json::{Value, json};

use super::*;

const ORIGINAL: &str = include_str!("fixtures/original-pebble.json");

fn loaded(change: impl FnOnce(&mut Value), variables: &[(&str, &str)]) -> Result<Loaded, String> {
    let place = tempfile::tempdir().unwrap();
    let folder = ConfigFolder::new(place.path());
    let mut file: Value = serde_json::from_str(ORIGINAL).unwrap();
    change(&mut file["api"]["restapi"]);
    fs::write(folder.config_file(), file.to_string()).unwrap();
    let variables: BTreeMap<String, String> =
        variables.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    load(&folder, &variables).map_err(|error| ErrorChain(&error).to_string())
}

fn access(change: impl FnOnce(&mut Value), variables: &[(&str, &str)]) -> Result<AccessConfig, String> {
    Ok(loaded(change, variables)?.config.rest_api.unwrap().access)
}

#[test]
fn an_address_for_everyone_needs_users_or_a_word() {
    let listen = |address: Value| move |rest: &mut Value| rest["http_listen_multiaddress"] = address;
    for open in [
        json!("/ip4/0.0.0.0/tcp/9094"),
        json!("/ip6/::/tcp/9094"),
        json!("/ip4/192.168.1.2/tcp/9094"),
        json!("/dns4/peer.example.org/tcp/9094"),
        json!(["/ip4/127.0.0.1/tcp/9094", "/ip4/10.0.0.1/tcp/9094"]),
    ] {
        let error = loaded(listen(open.clone()), &[]).unwrap_err();
        assert!(error.starts_with("api.restapi.http_listen_multiaddress = "), "{error}");
        for text in
            ["basic_auth_credentials", "\"allow_unauthenticated\": true", "CLUSTER_RESTAPI_ALLOWUNAUTHENTICATED=true"]
        {
            assert!(error.contains(text), "{error}");
        }
        let users = |rest: &mut Value| {
            rest["http_listen_multiaddress"] = open.clone();
            rest["basic_auth_credentials"] = json!({"ann": "swordfish"});
        };
        assert!(!loaded(users, &[]).unwrap().remarks.iter().any(|line| line.contains("everyone")));
        let meant = |rest: &mut Value| {
            rest["http_listen_multiaddress"] = open.clone();
            rest["allow_unauthenticated"] = json!(true);
        };
        for remarks in [
            loaded(meant, &[]).unwrap().remarks,
            loaded(listen(open.clone()), &[("CLUSTER_RESTAPI_ALLOWUNAUTHENTICATED", "true")]).unwrap().remarks,
        ] {
            assert!(
                remarks.iter().any(|line| line.starts_with("api.restapi.allow_unauthenticated: everyone")),
                "{remarks:?}"
            );
        }
        let no = [("CLUSTER_RESTAPI_ALLOWUNAUTHENTICATED", "false")];
        assert!(loaded(meant, &no).is_err());
    }
    for closed in [
        "/ip4/127.0.0.1/tcp/9094",
        "/ip4/127.8.8.8/tcp/1",
        "/ip6/::1/tcp/9094",
        "/dns4/localhost/tcp/9094",
        "/unix/run/api",
    ] {
        let loaded = loaded(listen(json!(closed)), &[]).unwrap();
        assert!(!loaded.remarks.iter().any(|line| line.contains("everyone")), "{closed}");
    }
    let variable = [("CLUSTER_RESTAPI_HTTPLISTENMULTIADDRESS", "/ip4/0.0.0.0/tcp/9094")];
    let error = loaded(|_| {}, &variable).unwrap_err();
    assert!(error.contains("environment variable CLUSTER_RESTAPI_HTTPLISTENMULTIADDRESS"), "{error}");
}

#[test]
fn a_host_over_libp2p_for_everyone_needs_users_or_a_word_too() {
    let identity = cluster_net::Identity::generate();
    let host = |rest: &mut Value| {
        rest["id"] = json!(identity.peer().to_string());
        rest["private_key"] = json!(identity.reveal_private_key());
        rest["libp2p_listen_multiaddress"] = json!("/ip4/0.0.0.0/tcp/9100");
    };
    let error = loaded(host, &[]).unwrap_err();
    assert!(error.starts_with("api.restapi.libp2p_listen_multiaddress = "), "{error}");
    assert!(error.contains("everyone who can reach /ip4/0.0.0.0/tcp/9100"), "{error}");
    let meant = |rest: &mut Value| {
        host(rest);
        rest["allow_unauthenticated"] = json!(true);
    };
    let remarks = loaded(meant, &[]).unwrap().remarks;
    assert!(remarks.iter().any(|line| line.contains("/ip4/0.0.0.0/tcp/9100 may write")), "{remarks:?}");
}

#[test]
fn the_api_of_a_follower_is_not_for_everyone_either() {
    let place = tempfile::tempdir().unwrap();
    let folder = ConfigFolder::new(place.path());
    fs::write(folder.config_file(), ORIGINAL).unwrap();
    let listen = ("CLUSTER_RESTAPI_HTTPLISTENMULTIADDRESS".to_owned(), "/ip4/0.0.0.0/tcp/9094".to_owned());
    let trusted = ("CLUSTER_CRDT_TRUSTEDPEERS".to_owned(), "*".to_owned());
    let mut variables = BTreeMap::from([listen, trusted]);
    let error = load_follower(&folder, &variables).unwrap_err().to_string();
    assert!(error.contains("allow_unauthenticated"), "{error}");
    variables.remove("CLUSTER_RESTAPI_HTTPLISTENMULTIADDRESS");
    load_follower(&folder, &variables).unwrap();
}

#[test]
fn scopes_are_those_of_users_and_known_words() {
    let users = json!({"ann": "one", "bob": "two"});
    let with = |scopes: Value| {
        let users = users.clone();
        move |rest: &mut Value| {
            rest["basic_auth_credentials"] = users;
            rest["basic_auth_scopes"] = scopes;
        }
    };
    let read = access(with(json!({"bob": ["read", "pin"]})), &[]).unwrap();
    assert_eq!(read.scopes, BTreeMap::from([("bob".to_owned(), Scopes::from_iter([Scope::Read, Scope::Pin]))]));
    assert_eq!((read.token_lifetime, read.allow_unauthenticated), (None, false));
    let variable = [("CLUSTER_RESTAPI_BASICAUTHSCOPES", "ann:admin,bob:read pin")];
    assert_eq!(access(with(json!({})), &variable).unwrap().scopes.len(), 2);
    for (scopes, text) in [
        (json!({"eve": ["read"]}), "\"eve\" is not in basic_auth_credentials"),
        (json!({"bob": ["write"]}), "a scope is read, pin or admin"),
        (json!({"bob": []}), "\"bob\" could do nothing"),
        (json!({"bob": "read"}), "expected an object"),
    ] {
        let error = access(with(scopes), &[]).unwrap_err();
        assert!(error.starts_with("api.restapi.basic_auth_scopes = ") && error.contains(text), "{error}");
    }
}

#[test]
fn tokens_live_for_ever_unless_something_else_is_said() {
    let lifetime =
        |text: &str| access(|rest| rest["token_lifetime"] = json!(text), &[]).map(|read| read.token_lifetime);
    assert_eq!(lifetime(""), Ok(None));
    assert_eq!(lifetime("0s"), Ok(None));
    assert_eq!(lifetime("12h"), Ok(Some(Duration::from_secs(12 * 3600))));
    assert!(lifetime("long").unwrap_err().starts_with("api.restapi.token_lifetime = \"long\""));
}
