//! The least reverse proxy on pingora: everything to one upstream, HTTP/1.1 and HTTP/2 in clear text.
//! `pingora-peer LISTEN UPSTREAM 1|2`: the last is the version of HTTP towards the upstream.

use std::sync::Arc;

use async_trait::async_trait;
use pingora_core::{
    Result,
    apps::HttpServerOptions,
    server::{Server, configuration::ServerConf},
    upstreams::peer::HttpPeer,
};
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};

struct One {
    upstream: String,
    version: u8,
}

#[async_trait]
impl ProxyHttp for One {
    type CTX = ();

    fn new_ctx(&self) -> Self::CTX {}

    async fn upstream_peer(&self, _: &mut Session, _: &mut ()) -> Result<Box<HttpPeer>> {
        let mut peer = HttpPeer::new(self.upstream.as_str(), false, String::new());
        peer.options.set_http_version(self.version, self.version);
        Ok(Box::new(peer))
    }
}

fn main() {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let [listen, upstream, version] = given.as_slice() else {
        panic!("usage: pingora-peer LISTEN UPSTREAM 1|2");
    };
    let conf = ServerConf {
        threads: 1,
        upstream_keepalive_pool_size: 512,
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let proxy = One {
        upstream: upstream.clone(),
        version: version.parse().expect("the version of HTTP is 1 or 2"),
    };
    let mut service = http_proxy_service(&Arc::clone(&server.configuration), proxy);
    let mut options = HttpServerOptions::default();
    options.h2c = true;
    if let Some(logic) = service.app_logic_mut() {
        logic.server_options = Some(options);
    }
    service.add_tcp(listen);
    server.add_service(service);
    server.run_forever();
}
