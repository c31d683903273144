//! Sessions that do nothing, before a server that is made up: it only lets in.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ascribe_wire::pg::startup::{First, first, startup_message};
use ascribe_wire::pg::{encode, server};
use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::bed::Server;
use crate::Plan;
use crate::ssh::resident;
use crate::table::Row;

/// Sessions that are opened at once.
const AT_ONCE: usize = 64;
const READY: &[u8] = b"Z\0\0\0\x05I";

async fn let_in(mut client: TcpStream) -> Result<()> {
    let mut read = BytesMut::new();
    while !matches!(first(&mut read)?, Some(First::Startup(_))) {
        ensure!(client.read_buf(&mut read).await? > 0, "nobody asks");
    }
    let mut said = BytesMut::new();
    said.extend_from_slice(&encode::authentication_ok());
    for (name, value) in [
        ("client_encoding", "UTF8"),
        ("server_version", "15.0"),
        ("standard_conforming_strings", "on"),
    ] {
        said.extend_from_slice(&encode::parameter_status(name.as_bytes(), value.as_bytes()));
    }
    said.extend_from_slice(&encode::backend_key_data(7, &[7; 4]));
    said.extend_from_slice(&encode::ready_for_query(server::Status::Idle));
    client.write_all(&said).await?;
    // Until it leaves.
    while client.read_buf(&mut read).await? > 0 {
        read.clear();
    }
    Ok(())
}

async fn enter(port: u16) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let parameters: [(&[u8], &[u8]); 2] = [(b"user", b"root@db1"), (b"database", b"bench")];
    stream.write_all(&startup_message(0, parameters)).await?;
    let mut read = BytesMut::new();
    while !read.ends_with(READY) {
        let some = tokio::time::timeout(Duration::from_secs(60), stream.read_buf(&mut read));
        ensure!(some.await?? > 0, "not let in: {}", read.escape_ascii());
    }
    Ok(stream)
}

async fn crowd(port: u16, count: usize) -> Result<Vec<TcpStream>> {
    let mut crowd = Vec::new();
    while crowd.len() < count {
        let some = AT_ONCE.min(count - crowd.len());
        let entering: Vec<_> = (0..some).map(|_| tokio::spawn(enter(port))).collect();
        for one in entering {
            crowd.push(one.await??);
        }
    }
    Ok(crowd)
}

pub(super) fn row(plan: &Plan) -> Result<Row> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    let target = listener.local_addr()?.port().to_string();
    runtime.spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(async move { let_in(client).await.unwrap_or_default() });
        }
    });
    let (gateway, port) = Server::own(&["--pg-gateway", &target, "no-sync"])?;
    // What the first sessions need once is not counted.
    let some = runtime.block_on(crowd(port, AT_ONCE))?;
    let before = resident(gateway.id())?;
    let all = runtime
        .block_on(crowd(port, plan.pg_idle))
        .context("a crowd")?;
    std::thread::sleep(Duration::from_secs(1));
    let each = (resident(gateway.id())? - before) / all.len() as f64;
    drop((some, all));
    Ok(Row {
        what: "memory of a database session that is idle",
        value: each,
        unit: "KiB",
        peer: None,
        ratio: Some(each / 128.0),
        bar: "<= 128 KiB",
        met: (plan.pg_idle >= 5_000).then_some(each <= 128.0),
        note: format!(
            "resident memory of gateway and ledger, {} sessions, before a server that only lets in",
            plan.pg_idle
        ),
        parts: vec![("sessions", plan.pg_idle as f64)],
    })
}
