//! Machines for peers: a network namespace for each of them, joined by bridges, so that a cluster can be cut apart and
//! healed as a network is: packets vanish, and nobody is told.
//!
//! A bridge is an *island*. Cutting moves cables (veth pairs) to other bridges, so it needs no firewall. Everything
//! belongs to one process, the *holder*, in a user, mount and network namespace of its own: no root is needed, and no
//! address exists outside. When the holder ends, the kernel takes all of it away, and it ends with the test, however
//! that ends: its standard input is a pipe from here.
//!
//! Where namespaces are not allowed, tests that want them are skipped with a line that says so, or fail if
//! `REQUIRE_NAMESPACES` is set, as it should be in CI.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Ipv4Addr;
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context, Result, ensure};

/// Most machines of a network: they share a /24.
const MAX_MACHINES: usize = 250;
/// What the holder says when everything is in place.
const READY: &str = "ready";

/// Machines that see each other as long as they are on the same island.
#[derive(Debug)]
pub struct Network {
    holder: Child,
    machines: usize,
    has_user_namespace: bool,
}

impl Network {
    /// Makes a network of so many machines, all on one island; `None`, with a line on standard error, where that is not
    /// possible.
    pub fn new(machines: usize) -> Result<Option<Self>> {
        ensure!((1..=MAX_MACHINES).contains(&machines), "a network has 1 to {MAX_MACHINES} machines");
        let mut refusals = String::new();
        // Root may be without user namespaces, and others without rights outside of one.
        for has_user_namespace in [true, false] {
            match hold(machines, has_user_namespace) {
                Ok(holder) => return Ok(Some(Self { holder, machines, has_user_namespace })),
                Err(refusal) => write!(refusals, " {refusal:#}.")?,
            }
        }
        skipped(&refusals);
        Ok(None)
    }

    /// The address of a machine, as the others see it.
    pub fn address(machine: usize) -> Ipv4Addr {
        let last = u8::try_from(machine + 1).expect("a network has at most MAX_MACHINES machines");
        Ipv4Addr::new(10, 20, 0, last)
    }

    /// What must stand before a command so that it runs on a machine. The process keeps its id, and is killed when the
    /// thread that starts it ends.
    pub fn run_on(&self, machine: usize) -> Vec<String> {
        let namespace = format!("--net=/proc/{}/root/run/netns/machine{machine}", self.holder.id());
        let kill_with_parent = ["setpriv", "--pdeathsig", "KILL", "--"].map(str::to_owned);
        [self.enter(&namespace), kill_with_parent.to_vec()].concat()
    }

    /// Puts each group on an island of its own. Every machine must be in one group.
    pub fn part(&self, groups: &[&[usize]]) -> Result<()> {
        let mut all: Vec<usize> = groups.concat();
        all.sort_unstable();
        ensure!(all.iter().copied().eq(0..self.machines), "{groups:?} does not name each of {} once", self.machines);
        let mut moves = String::new();
        for (island, group) in groups.iter().enumerate() {
            for machine in *group {
                writeln!(moves, "link set port{machine} master island{island}")?;
            }
        }
        let enter = self.enter("--net");
        let mut ip = Command::new(&enter[0])
            .args(&enter[1..])
            .args(["ip", "-batch", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        // Dropped at the end of the statement: `ip` reads until the end of its input.
        ip.stdin.take().context("a pipe was asked for")?.write_all(moves.as_bytes())?;
        let Output { status, stderr, .. } = ip.wait_with_output()?;
        ensure!(status.success(), "parting into {groups:?}: {status}: {}", String::from_utf8_lossy(&stderr));
        Ok(())
    }

    /// Puts all machines on one island.
    pub fn heal(&self) -> Result<()> {
        self.part(&[&Vec::from_iter(0..self.machines)])
    }

    fn enter(&self, network: &str) -> Vec<String> {
        let target = self.holder.id().to_string();
        let mut words = vec!["nsenter", "--target", &target, "--mount", network];
        if self.has_user_namespace {
            words.extend(["--user", "--preserve-credentials"]);
        }
        words.push("--");
        words.into_iter().map(str::to_owned).collect()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        drop(self.holder.kill());
        drop(self.holder.wait());
    }
}

/// Starts the holder and waits until it has built everything.
fn hold(machines: usize, has_user_namespace: bool) -> Result<Child> {
    let user: &[&str] = if has_user_namespace { &["--user", "--map-root-user"] } else { &[] };
    let mut holder = Command::new("unshare")
        .args(user)
        .args(["--net", "--mount", "--", "sh", "-ec", &blueprint(machines)])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("unshare cannot be run")?;
    let mut said = String::new();
    let output = holder.stdout.take().context("a pipe was asked for")?;
    BufReader::new(output).read_line(&mut said)?;
    if said.trim() == READY {
        return Ok(holder);
    }
    // It has closed its output, so it is at its end.
    drop(holder.stdin.take());
    let mut complaint = String::new();
    holder.stderr.take().context("a pipe was asked for")?.read_to_string(&mut complaint)?;
    let status = holder.wait()?;
    let words: Vec<&str> = complaint.split_whitespace().collect();
    anyhow::bail!("{} ({status})", words.join(" "))
}

/// What the holder runs: builds as many islands as there are machines, the machines, and a cable from each to the first
/// island; then waits for the end of its input.
fn blueprint(machines: usize) -> String {
    // `ip` keeps the names of namespaces in /run/netns; this /run is seen by the holder alone.
    let mut script = "mount -t tmpfs none /run\nmkdir /run/netns\nip link set lo up\n".to_owned();
    for machine in 0..machines {
        let (island, address) = (machine, Network::address(machine));
        let lines = [
            format!("ip link add island{island} type bridge"),
            format!("ip link set island{island} up"),
            format!("ip netns add machine{machine}"),
            format!("ip link add port{machine} type veth peer name eth0 netns machine{machine}"),
            format!("ip link set port{machine} master island0 up"),
            format!("ip -netns machine{machine} address add {address}/24 dev eth0"),
            format!("ip -netns machine{machine} link set lo up"),
            format!("ip -netns machine{machine} link set eth0 up"),
        ];
        script.extend(lines.iter().flat_map(|line| [line.as_str(), "\n"]));
    }
    script + "echo " + READY + "\nread -r _ || true\n"
}

#[expect(clippy::print_stderr, reason = "a test that did nothing must say so")]
fn skipped(refusals: &str) {
    assert!(
        std::env::var_os("REQUIRE_NAMESPACES").is_none(),
        "REQUIRE_NAMESPACES is set, and namespaces are refused:{refusals}"
    );
    eprintln!("skipped: no network namespaces here:{refusals}");
}
