//! Between a client and the API server: a wire that can be cut, as a network can.

use http::Uri;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

use crate::world::config;

/// The wire. Cut, it ends every connection and takes no new one.
pub struct Wire {
    address: String,
    is_whole: watch::Sender<bool>,
}

impl Wire {
    /// A whole wire to the API server of the tests.
    pub async fn new() -> Self {
        let url = config().await.cluster_url;
        let server = format!(
            "{}:{}",
            url.host().expect("a host"),
            url.port_u16().unwrap_or(443)
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let is_whole = watch::Sender::new(true);
        let wire = is_whole.clone();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (server, mut wire) = (server.clone(), wire.subscribe());
                tokio::spawn(async move {
                    if !*wire.borrow() {
                        return;
                    }
                    let Ok(mut server) = TcpStream::connect(server).await else {
                        return;
                    };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                        _ = wire.wait_for(|is_whole| !is_whole) => {}
                    }
                });
            }
        });
        Self { address, is_whole }
    }

    /// The API server at this end.
    #[must_use]
    pub fn url(&self) -> Uri {
        format!("https://{}", self.address).parse().expect("a URL")
    }

    /// Cuts it.
    pub fn cut(&self) {
        self.is_whole.send_replace(false);
    }

    /// Mends it.
    pub fn mend(&self) {
        self.is_whole.send_replace(true);
    }
}
