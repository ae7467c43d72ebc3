//! The failures that only an outsider can make: a killed operator, a stopped API server.

use k8s_openapi::api::core::v1::Pod;

use crate::{Result, SYSTEM, command::run, fail, kubectl_in};

/// The single node of `e2e/cluster`, whose programs can be stopped one by one.
pub struct Node {
    command: Vec<String>,
}

impl Node {
    /// The node, where the suite runs on one.
    #[must_use]
    pub fn here() -> Option<Self> {
        let command = std::env::var("ORTOLAN_E2E_NODE").ok()?;
        let command: Vec<_> = command.split_whitespace().map(str::to_owned).collect();
        (!command.is_empty()).then_some(Self { command })
    }

    /// `e2e/cluster/node NAME ARGUMENTS`.
    ///
    /// # Errors
    /// When it fails.
    pub async fn run(&self, arguments: &[&str]) -> Result<String> {
        let mut all: Vec<&str> = self.command.iter().map(String::as_str).collect();
        all.extend(arguments);
        run(all[0], &all[1..]).await
    }

    /// Ends the server of a pod without a word (SIGKILL), as a crash does: its container starts again.
    ///
    /// # Errors
    /// When the pod has no server's process here.
    pub async fn kill_server(&self, pod: &Pod) -> Result {
        let uid = pod.metadata.uid.as_deref().unwrap_or("?");
        let kill = format!(
            "found=; for pid in $(pgrep -f ^/usr/bin/ortolan-server); do if grep -q {uid} /proc/$pid/cgroup; then kill -KILL $pid; found=1; fi; done; [ -n \"$found\" ]"
        );
        self.run(&["enter", "bash", "-c", &kill]).await.map(drop)
    }

    /// Ends all replicas of the operator without a word: SIGKILL where the node is ours, else a
    /// deletion of the pods without grace.
    ///
    /// # Errors
    /// When there is none to end.
    pub async fn kill_operators() -> Result {
        match Self::here() {
            Some(node) => {
                let all = [
                    "enter",
                    "pkill",
                    "-KILL",
                    "-f",
                    "^/usr/bin/ortolan-operator run",
                ];
                node.run(&all).await?;
            }
            None => {
                let pods = "app.kubernetes.io/component=operator";
                let now = [
                    "delete",
                    "pods",
                    "-l",
                    pods,
                    "--grace-period=0",
                    "--force",
                    "--wait=false",
                ];
                let deleted = kubectl_in(SYSTEM, &now).await?;
                if !deleted.contains("deleted") {
                    return fail("there is no operator to kill");
                }
            }
        }
        Ok(())
    }
}
