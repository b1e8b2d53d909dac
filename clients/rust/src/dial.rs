//! How a connection that listens is made, whatever the TLS library: its type is known here only.

use crate::Error;
use futures_util::future::BoxFuture;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{AsyncMessage, Client, Config, Socket};

/// Gives the next message of a connection, and drives it meanwhile.
pub(crate) type Messages = Box<
    dyn FnMut(&mut Context<'_>) -> Poll<Option<Result<AsyncMessage, tokio_postgres::Error>>> + Send,
>;

/// Opens a connection.
pub(crate) type Dial =
    Arc<dyn Fn() -> BoxFuture<'static, Result<(Client, Messages), Error>> + Send + Sync>;

/// Opens connections as a configuration says, over TLS as `tls` makes it.
pub(crate) fn dial<T>(config: Config, tls: T) -> Dial
where
    T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
    T::Stream: Send + Sync,
    T::TlsConnect: Send + Sync,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    Arc::new(move || {
        let (config, tls) = (config.clone(), tls.clone());
        Box::pin(async move {
            let (client, mut connection) = config.connect(tls).await?;
            let messages: Messages = Box::new(move |context| connection.poll_message(context));
            Ok((client, messages))
        })
    })
}
