//! An OAuth 2.0 authorization server: it issues tokens of RFC 9068 for client credentials (RFC
//! 6749, section 4.4), and publishes its key. Envoy's `jwt_authn` in front of the filter verifies
//! them.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::{SystemTime, UNIX_EPOCH};

use agent_meter::stack::ANY_PORT;
use anyhow::{Context, ensure};
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Form, Json, Router};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rsa::pkcs1v15::SigningKey;
use rsa::rand_core::OsRng;
use rsa::sha2::Sha256;
use rsa::signature::{SignatureEncoding, Signer};
use rsa::traits::PublicKeyParts;
use rsa::{RsaPrivateKey, RsaPublicKey};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use crate::client::{Client, request};

const FILTERS: &str =
    "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/http_filters";
/// The issuer in the tokens.
const NAME: &str = "https://issuer.test";
const SECONDS: u64 = 600;

/// The issuer's key, and a key of somebody else.
static KEYS: LazyLock<[RsaPrivateKey; 2]> = LazyLock::new(|| {
    [(); 2].map(|()| RsaPrivateKey::new(&mut OsRng, 2048).expect("a key of a usual size"))
});

/// A client that the server knows: id, secret, customer and team.
type Registered = (&'static str, &'static str, &'static str, &'static str);

const CLIENTS: [Registered; 2] = [
    ("acme-bot", "secret of acme", "acme", "research"),
    ("rival-bot", "secret of rival", "rival", "sales"),
];

/// A running server; it stops when it is dropped.
#[derive(Debug)]
pub(crate) struct Issuer {
    addr: SocketAddr,
    serving: AbortHandle,
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Issuer {
    /// Serves on a free port.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind(ANY_PORT).await?;
        let addr = listener.local_addr()?;
        let keys = tokio::task::spawn_blocking(|| key_set(&KEYS[0].to_public_key())).await?;
        let app = Router::new()
            .route("/token", post(token))
            .route("/jwks", get(async |State(keys): State<Arc<Value>>| Json((*keys).clone())))
            .with_state(Arc::new(keys));
        let serving = tokio::spawn(async move { axum::serve(listener, app).await });
        Ok(Self { addr, serving: serving.abort_handle() })
    }

    /// Puts `jwt_authn` before the filter; `may_be_missing` lets requests without a token go on.
    pub(crate) fn settings(&self, may_be_missing: bool) -> Vec<(String, Value)> {
        let requires = if may_be_missing {
            json!({ "requires_any": { "requirements": [
                { "provider_name": "issuer" }, { "allow_missing": {} },
            ] } })
        } else {
            json!({ "provider_name": "issuer" })
        };
        let filter = json!({
            "name": "envoy.filters.http.jwt_authn",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
                "providers": { "issuer": {
                    "issuer": NAME,
                    "forward": true,
                    "payload_in_metadata": "jwt_payload",
                    "remote_jwks": {
                        "http_uri": {
                            "uri": format!("http://{}/jwks", self.addr),
                            "cluster": "issuer",
                            "timeout": "5s",
                        },
                        "cache_duration": "600s",
                    },
                } },
                "rules": [{ "match": { "prefix": "/" }, "requires": requires }],
            },
        });
        let cluster = json!({
            "name": "issuer",
            "type": "STATIC",
            "load_assignment": { "cluster_name": "issuer", "endpoints": [{ "lb_endpoints": [{
                "endpoint": { "address": { "socket_address": {
                    "address": self.addr.ip().to_string(), "port_value": self.addr.port(),
                } } },
            }] }] },
        });
        vec![
            (format!("{FILTERS}/+0"), filter),
            ("/static_resources/clusters/-".to_owned(), cluster),
        ]
    }

    /// Asks for a token as a client does.
    pub(crate) async fn token(&self, client: &str) -> anyhow::Result<String> {
        let (_, secret, ..) = registered(client).context("a client that is registered")?;
        let answer = self.ask(client, secret).await?;
        ensure!(answer["token_type"] == "Bearer", "{answer}");
        Ok(answer["access_token"].as_str().context("a token")?.to_owned())
    }

    /// The server's answer to a client with this secret.
    pub(crate) async fn ask(&self, client: &str, secret: &str) -> anyhow::Result<Value> {
        let secret = secret.replace(' ', "+");
        let form =
            format!("grant_type=client_credentials&client_id={client}&client_secret={secret}");
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        let request = request("POST", "/token", &headers, form.as_bytes());
        let answer = Client::connect(self.addr).await?.exchange(&request).await?;
        Ok(serde_json::from_slice(&answer.body)?)
    }
}

fn registered(client: &str) -> Option<Registered> {
    CLIENTS.into_iter().find(|(id, ..)| *id == client)
}

#[derive(serde::Deserialize)]
struct Grant {
    grant_type: String,
    client_id: String,
    client_secret: String,
}

async fn token(Form(grant): Form<Grant>) -> (StatusCode, Json<Value>) {
    if grant.grant_type != "client_credentials" {
        return (StatusCode::BAD_REQUEST, Json(json!({ "error": "unsupported_grant_type" })));
    }
    match registered(&grant.client_id) {
        Some((id, secret, ..)) if secret == grant.client_secret => {
            let token = signed(&claims(id));
            let answer =
                json!({ "access_token": token, "token_type": "Bearer", "expires_in": SECONDS });
            (StatusCode::OK, Json(answer))
        }
        _ => (StatusCode::UNAUTHORIZED, Json(json!({ "error": "invalid_client" }))),
    }
}

/// The claims of a registered client's token.
pub(crate) fn claims(client: &str) -> Value {
    let (id, _, customer, team) = registered(client).expect("a client that is registered");
    json!({
        "iss": NAME, "sub": id, "client_id": id, "customer_id": customer, "team": team,
        "exp": now() + SECONDS,
    })
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// A token of the issuer with any claims.
pub(crate) fn signed(claims: &Value) -> String {
    rs256(&KEYS[0], claims)
}

/// The same, signed by somebody else.
pub(crate) fn forged(claims: &Value) -> String {
    rs256(&KEYS[1], claims)
}

/// The same without a signature.
pub(crate) fn unsigned(claims: &Value) -> String {
    format!("{}.", parts(&json!({ "alg": "none", "typ": "JWT" }), claims))
}

fn rs256(key: &RsaPrivateKey, claims: &Value) -> String {
    let parts = parts(&json!({ "alg": "RS256", "typ": "JWT", "kid": "1" }), claims);
    let signature = SigningKey::<Sha256>::new(key.clone()).sign(parts.as_bytes());
    format!("{parts}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature.to_vec()))
}

fn parts(header: &Value, claims: &Value) -> String {
    [header, claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part.to_string())).join(".")
}

fn key_set(key: &RsaPublicKey) -> Value {
    let [n, e] =
        [key.n(), key.e()].map(|number| BASE64_URL_SAFE_NO_PAD.encode(number.to_bytes_be()));
    json!({ "keys": [{ "kty": "RSA", "alg": "RS256", "use": "sig", "kid": "1", "n": n, "e": e }] })
}
