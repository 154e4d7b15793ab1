//! Connections that do nothing: whoever started us reads the memory meanwhile.

use std::io::BufRead;
use std::sync::Arc;

use anyhow::{Context, Result};

use super::Target;
use super::h1::H1;

/// How many connections are opened at the same time.
const AT_ONCE: usize = 8;

/// Says `warm` and `holding`, and goes on at a line on the standard input.
pub async fn run(target: &Arc<Target>, path: &str, connections: usize) -> Result<()> {
    drop(open(target, path, 2 * AT_ONCE).await?);
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    say("warm")?;
    let held = open(target, path, connections).await?;
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    say("holding")?;
    drop(held);
    Ok(())
}

fn say(word: &str) -> Result<()> {
    println!("{word}");
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).context("nobody says go on")?;
    Ok(())
}

async fn open(target: &Arc<Target>, path: &str, connections: usize) -> Result<Vec<H1>> {
    let mut held = Vec::with_capacity(connections);
    while held.len() < connections {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..AT_ONCE.min(connections - held.len()) {
            let (target, path) = (Arc::clone(target), path.to_owned());
            tasks.spawn(async move {
                let mut connection = H1::new(target.open().await?, &target.host, &path);
                connection.get().await?;
                anyhow::Ok(connection)
            });
        }
        while let Some(done) = tasks.join_next().await {
            held.push(done??);
        }
    }
    Ok(held)
}
