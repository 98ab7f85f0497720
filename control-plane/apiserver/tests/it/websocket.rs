//! Watches over WebSocket, as scripts in browsers ask for them: the token comes as a subprotocol.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::{Request, Response};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::world::World;

type Socket = WebSocketStream<tokio_rustls::client::TlsStream<tokio::net::TcpStream>>;

const WATCH: &str = "ws://localhost/api/v1/namespaces/default/configmaps?watch=1&resourceVersion=0";

async fn open(world: &World, headers: &[(&'static str, &str)]) -> Result<(Socket, Response<Option<Vec<u8>>>), Error> {
    let mut request: Request<()> = WATCH.into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    client_async(request, world.connect(None).await).await
}

async fn event(socket: &mut Socket) -> Value {
    match socket.next().await.unwrap().unwrap() {
        Message::Text(text) => serde_json::from_str(&text).unwrap(),
        other => panic!("{other:?} is no text"),
    }
}

#[tokio::test]
async fn each_event_of_a_watch_is_a_message() {
    let world = World::new().await;
    let path = "/api/v1/namespaces/default/serviceaccounts/reader";
    let account = json!({"metadata": {"name": "reader"}});
    let account = world.admin("POST", path.strip_suffix("/reader").unwrap(), account).await.ok();
    let role = json!({"metadata": {"name": "r"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": "default"}]});
    world.admin("POST", "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings", role).await.ok();
    let expires = jiff::Timestamp::now().as_second() + 600;
    let token = world.token(&account, &apiserver::Config::default().service_account_issuer, expires);
    let token = format!("base64url.bearer.authorization.k8s.io.{}", BASE64_URL_SAFE_NO_PAD.encode(token));
    let offered = format!("{token}, binary.k8s.io");
    let (mut socket, answer) = open(&world, &[("sec-websocket-protocol", &offered)]).await.unwrap();
    assert_eq!(answer.headers()["sec-websocket-protocol"], "binary.k8s.io", "the token is nobody else's");
    for name in ["a", "b"] {
        let map = json!({"metadata": {"name": name}, "data": {"text": "one\ntwo"}});
        world.admin("POST", "/api/v1/namespaces/default/configmaps", map).await.ok();
    }
    for name in ["a", "b"] {
        let event = event(&mut socket).await;
        assert_eq!((&event["type"], &event["object"]["metadata"]["name"]), (&json!("ADDED"), &json!(name)));
    }
}

#[tokio::test]
async fn without_rights_there_is_no_upgrade() {
    let world = World::new().await;
    match open(&world, &[]).await {
        Err(Error::Http(answer)) => assert_eq!(answer.status(), 403),
        other => panic!("{:?}", other.map(|(_, answer)| answer)),
    }
}
