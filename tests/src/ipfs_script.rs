//! A script for the real `ipfs` command line: more than 60 commands, run against anything that speaks Kubo's RPC, so that
//! answers can be compared with Kubo's own.
//!
//! Commands are lines for a shell in a folder with known content, where `ipfs` speaks to the RPC in question. What one command
//! prints may stand in a file for later ones, so every line is the same on every node.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

/// One line of the script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A command whose answer is the same everywhere.
    Same(&'static str),
    /// A command that the IPFS proxy answers in its own way: what it prints holds this text. The table of
    /// `docs/compatibility.md` says why.
    Differs(&'static str, &'static str),
    /// What was pinned must be on the nodes before the script goes on: a cluster pins in the background.
    Settle,
}

use Step::{Differs, Same, Settle};

/// The script, in order.
pub const SCRIPT: &[Step] = &[
    // Adding.
    Same("ipfs add -Q a.txt | tee a.cid"),
    Same("ipfs add b.txt"),
    Same("ipfs add -q big.bin | tee big.cid"),
    Same("ipfs add empty"),
    Same("ipfs add -Q -r tree | tee tree.cid"),
    Same("ipfs add -r tree"),
    Same("ipfs add -r --hidden tree"),
    Same("ipfs add -w a.txt b.txt"),
    Same("ipfs add -w -r tree"),
    Same("echo from a pipe | ipfs add"),
    Same("echo from a pipe | ipfs add -w --stdin-name=name.txt"),
    Same("ipfs add --cid-version=1 big.bin"),
    Same("ipfs add --raw-leaves big.bin"),
    Same("ipfs add --cid-version=1 --raw-leaves=false big.bin"),
    Same("ipfs add --chunker=size-1000 big.bin"),
    Same("ipfs add --chunker=rabin-1024-2048-4096 big.bin"),
    Same("ipfs add --chunker=buzhash big.bin"),
    Same("ipfs add --trickle --chunker=size-500 big.bin"),
    Same("ipfs add --hash=sha2-512 a.txt"),
    Same("ipfs add --hash=blake2b-256 big.bin"),
    Differs("ipfs add --silent a.txt", "added "),
    Same("ipfs add --pin=false -Q not-pinned.txt | tee other.cid"),
    Same("ipfs add --pin-name=named -Q c.txt | tee c.cid"),
    Same("ipfs add --progress=true --quieter a.txt 2>/dev/null"),
    Same("ipfs add no-such-file 2>&1 | sed -n 1p"),
    Differs("ipfs add --only-hash a.txt", "Error: only-hash is not supported when adding to cluster"),
    Differs("ipfs add --hash=md1 a.txt", "Error: "),
    Differs("ipfs add --chunker=size-x a.txt", "Error: "),
    Settle,
    // Reading: passed on.
    Same("ipfs cat $(cat a.cid)"),
    Same("ipfs cat --offset=3 --length=4 $(cat a.cid)"),
    Same("ipfs cat $(cat big.cid) | cmp - big.bin"),
    Same("ipfs cat $(cat tree.cid)/deep/y"),
    Same("ipfs cat $(cat tree.cid)"),
    Same("ipfs cat $(cat tree.cid)/no-such-file"),
    Same("ipfs ls $(cat tree.cid)"),
    Same("ipfs ls --resolve-type=false --size=false $(cat tree.cid)/deep"),
    Same("rm -rf got && ipfs get -o got $(cat tree.cid) >/dev/null 2>&1 && (cd got && find . | sort)"),
    Same("ipfs get -a -o got.tar $(cat a.cid) >/dev/null 2>&1 && tar -tf got.tar"),
    Same("ipfs refs $(cat tree.cid)"),
    Same("ipfs refs -r --unique --format='<src> <linkname> <dst>' $(cat tree.cid)"),
    Same("ipfs resolve /ipfs/$(cat tree.cid)/deep/y"),
    // Pins.
    Same("ipfs pin ls --type=recursive -q | sort | grep -f tree.cid"),
    Same("ipfs pin ls $(cat a.cid)"),
    Same("ipfs pin ls --type=recursive $(cat a.cid) $(cat tree.cid) | sort"),
    Same("ipfs pin ls --stream --type=recursive --quiet | sort | grep -f a.cid"),
    Same("ipfs pin ls --names --type=recursive | grep named"),
    Same("ipfs pin ls --name=nam -q"),
    Same("ipfs pin ls --type=direct"),
    Same("ipfs pin ls --type=sideways"),
    Differs("ipfs pin ls --type=direct $(cat a.cid)", "is not pinned"),
    Differs("ipfs pin ls nonsense", "Error: error decoding Cid: "),
    Same("ipfs pin add $(cat a.cid)"),
    Same("ipfs pin add --progress $(cat a.cid) 2>/dev/null"),
    Same("ipfs pin add $(cat a.cid) $(cat tree.cid)"),
    Same("cat a.cid tree.cid | ipfs pin add"),
    Same("ipfs pin add --name=other $(cat tree.cid)/deep"),
    Same("ipfs pin ls --name=other"),
    Differs("ipfs pin add nonsense", "Error: Error parsing IPFS Path: invalid path \"nonsense\""),
    Settle,
    Same("ipfs pin rm $(cat a.cid)"),
    Differs("ipfs pin rm $(cat a.cid)", "Error: pin is not part of the pinset"),
    Same("ipfs pin add --recursive=false $(cat a.cid)"),
    Same("ipfs pin ls --type=direct"),
    Same("ipfs pin ls $(cat a.cid)"),
    Settle,
    Same("ipfs pin rm $(cat a.cid)"),
    Same("ipfs pin update $(cat c.cid) $(cat other.cid)"),
    Same("ipfs pin ls --type=recursive $(cat other.cid)"),
    Differs("ipfs pin ls $(cat c.cid)", "is not pinned"),
    Differs("ipfs pin update $(cat c.cid) $(cat tree.cid)", "Error: "),
    Same("ipfs pin update --unpin=false $(cat other.cid) $(cat a.cid)"),
    Same("ipfs pin ls --type=recursive $(cat other.cid) $(cat a.cid) | sort"),
    Settle,
    Same("ipfs pin verify | sort"),
    // Blocks and DAGs.
    Same("printf block | ipfs block put | tee block.cid"),
    Same("printf pinned | ipfs block put --pin | tee pinned.cid"),
    Same("ipfs pin ls --type=recursive $(cat pinned.cid)"),
    Same("ipfs block get $(cat block.cid)"),
    Same("ipfs block stat $(cat block.cid)"),
    Same("printf x | ipfs block put --mhtype=nonsense --pin"),
    Same("echo '{\"a\": 1}' | ipfs dag put | tee dag.cid"),
    Same("echo '{\"b\": 2}' | ipfs dag put --pin | tee kept.cid"),
    Same("ipfs pin ls --type=recursive $(cat kept.cid)"),
    Same("ipfs dag get $(cat dag.cid)"),
    Same("ipfs dag resolve $(cat tree.cid)/deep"),
    Same("ipfs dag stat --progress=false $(cat tree.cid)"),
    Same("ipfs dag export --progress=false $(cat tree.cid) | sha256sum"),
    Same("ipfs dag export --progress=false $(cat tree.cid) | ipfs dag import --pin-roots=false"),
    // Files, and the rest.
    Same("ipfs files mkdir /folder && ipfs files cp /ipfs/$(cat big.cid) /folder/big && ipfs files ls -l /folder"),
    Same("ipfs files stat --hash /folder"),
    Same("echo written | ipfs files write --create /folder/note && ipfs files read /folder/note"),
    Same("ipfs files rm -r /folder && ipfs files ls /"),
    Same("ipfs version --number"),
    Same("ipfs swarm peers"),
    Same("ipfs swarm addrs listen | wc -l"),
    Same("ipfs id --format='<aver>'"),
    Same("ipfs commands | sed -n 1,5p"),
    Same("ipfs repo version"),
    Settle,
    Same("ipfs block rm $(cat block.cid)"),
    Differs("ipfs repo stat", "NumObjects: 0"),
    Same("ipfs repo stat --size-only | sed 's/[0-9]*$//' | tr -d ' '"),
    Same("ipfs repo gc -q | sort | grep -c . >/dev/null && echo collected"),
    Same("ipfs cat $(cat tree.cid)/x"),
    Same("ipfs pin rm $(cat tree.cid)"),
];

/// What a command said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its exit code.
    pub code: Option<i32>,
    /// Both outputs.
    pub said: String,
}

/// The `ipfs` command line, pointed at an RPC, in a folder of its own with the script's content.
#[derive(Debug)]
pub struct Shell {
    folder: TempDir,
    binary: PathBuf,
    rpc: String,
}

impl Shell {
    /// A shell in which `ipfs` is `binary` and speaks to the RPC at the multiaddress `rpc`.
    pub fn new(binary: &Path, rpc: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let place = folder.path();
        fs::create_dir_all(place.join("tree/deep/er"))?;
        let files = [
            ("a.txt", "hello world\n"),
            ("b.txt", "something else\n"),
            ("c.txt", "named\n"),
            ("not-pinned.txt", "kept for a while\n"),
            ("empty", ""),
            ("tree/x", "x\n"),
            ("tree/.hidden", "hidden\n"),
            ("tree/deep/y", "y\n"),
            ("tree/deep/er/a name with spaces é", "z\n"),
        ];
        for (name, text) in files {
            fs::write(place.join(name), text)?;
        }
        std::os::unix::fs::symlink("x", place.join("tree/link"))?;
        let big: Vec<u8> = (0..600_000_u64).map(|number| (number * number % 251 + number / 1000 % 5) as u8).collect();
        fs::write(place.join("big.bin"), big)?;
        Ok(Self { folder, binary: binary.to_owned(), rpc: rpc.to_owned() })
    }

    /// Runs a line to its end.
    pub fn run(&self, line: &str) -> Result<Answer> {
        let script = format!("exec 2>&1\nipfs() {{ \"$IPFS_BINARY\" --api \"$IPFS_RPC\" \"$@\"; }}\n{line}");
        let output = Command::new("bash")
            .args(["-o", "pipefail", "-c", &script])
            .current_dir(self.folder.path())
            .env("IPFS_BINARY", &self.binary)
            .env("IPFS_RPC", &self.rpc)
            // There is no repository: whatever happens, happens over the RPC.
            .env("IPFS_PATH", self.folder.path().join("no-repository"))
            .env("IPFS_TELEMETRY", "off")
            .env("LC_ALL", "C")
            .env_remove("IPFS_LOGGING")
            .stdin(Stdio::null())
            .output()
            .context("running bash")?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(!said.contains("cannot connect to the api"), "{line}: {said}");
        Ok(Answer { code: output.status.code(), said })
    }
}
