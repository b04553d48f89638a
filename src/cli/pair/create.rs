//! `pair create`: one request makes a pair. Source first, then the replica; if the second half fails, the first is undone.

use super::args::CreateArgs;
use super::guests::{AskError, Guests};
use super::operate::{ask, operate, seeded, state};
use super::{Usage, code, render, succeeded};
use crate::cli::output;
use crate::link::PairKey;
use crate::vip::Vip;
use anyhow::{Context, anyhow, bail};
use aws_lc_rs::rand;
use datastore_api::ExposeSecret;
use serde_json::{Map, Value, json};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::process::ExitCode;
use std::time::Duration;

const PASSWORD_LENGTH: usize = 24;
const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// What can be told from the command line alone.
pub fn check(args: &CreateArgs) -> Result<(), Usage> {
    if args.source == args.replica {
        return Err(Usage(format!("guest {} cannot be a pair with itself", args.source)));
    }
    if !args.vip.is_empty() {
        Vip::new(args.vip.clone()).map_err(|problem| Usage(format!("--vip: {problem}")))?;
    }
    if args.witness.is_some() && args.failover != "automatic" {
        return Err(Usage("a witness is for --failover automatic".to_owned()));
    }
    Ok(())
}

/// Makes the pair.
pub async fn run(guests: &impl Guests, args: &CreateArgs) -> anyhow::Result<ExitCode> {
    let limit = Duration::from_secs(args.reach.timeout);
    let (source, replica) = tokio::join!(state(guests, &args.source, limit), state(guests, &args.replica, limit));
    let [source, replica] = found(source, replica)?.map(|status| Member::read(&status));
    let (source, replica) = (source?, replica?);
    fits(args, &source, &replica)?;

    let id = random_hex(16);
    let spec = Spec {
        args,
        id: &id,
        key: PairKey::generate(),
        user: format!("pair_{}", random_hex(4)),
        password: password(),
    };
    if let Some(path) = &args.witness_key_file {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .with_context(|| format!("could not make the file {} for the witness's key", path.display()))?;
        writeln!(file, "{}", spec.key.to_base64().expose_secret())
            .and_then(|()| file.sync_all())
            .with_context(|| format!("could not write {}", path.display()))?;
    }
    let made = halves(guests, &spec, &source, &replica).await;
    let report = match made {
        Ok(report) => report,
        Err(error) => {
            if let Some(path) = &args.witness_key_file {
                // The pair it belongs to is not there.
                let _ = fs::remove_file(path);
            }
            return Err(error);
        }
    };
    let (source, replica) = tokio::join!(state(guests, &args.source, limit), state(guests, &args.replica, limit));
    let all = found(source, replica).with_context(|| format!("pair {id} is made, its state is not known"))?;
    if args.json {
        output::json(&json!({"id": id, "operation": report, "guests": all}), false)?;
    } else {
        output::print(render::status(&all).as_bytes())?;
    }
    Ok(code(true))
}

/// Both, or what is wrong with each.
fn found(source: Result<Value, AskError>, replica: Result<Value, AskError>) -> anyhow::Result<[Value; 2]> {
    match (source, replica) {
        (Ok(source), Ok(replica)) => Ok([source, replica]),
        (Err(source), Err(replica)) => bail!("{:#}; {:#}", anyhow!(source), anyhow!(replica)),
        (Err(error), _) | (_, Err(error)) => Err(error.into()),
    }
}

/// Source, then replica. Answers the replica's report.
async fn halves(guests: &impl Guests, spec: &Spec<'_>, source: &Member, replica: &Member) -> anyhow::Result<Value> {
    output::complain(&format!("{}: becomes the source of pair {}", source.guest, spec.id));
    let first = configure(guests, source, spec.for_guest("source", replica)).await;
    if let Err(failure) = first {
        let mut error = failure.error.context("no pair was made");
        if !failure.nothing_done {
            error = error.context(undo(guests, &[source]).await);
        }
        return Err(error);
    }
    output::complain(&format!("{}: becomes its replica", replica.guest));
    match configure(guests, replica, spec.for_guest("replica", source)).await {
        Ok(report) => Ok(report),
        Err(failure) => {
            let both = [replica, source];
            let undone = if failure.nothing_done { &both[1..] } else { &both[..] };
            let told = undo(guests, undone).await;
            Err(failure.error.context(told).context("no pair was made"))
        }
    }
}

struct Failure {
    error: anyhow::Error,
    /// The guest has refused: it is as it was.
    nothing_done: bool,
}

async fn configure(guests: &impl Guests, member: &Member, pair: Value) -> Result<Value, Failure> {
    let follows = pair["role"] == "replica";
    let args = Map::from_iter([("pair".to_owned(), pair)]);
    let answered = if follows {
        ask(guests, &member.guest, "configure_pair", args)
            .await
            .map_err(anyhow::Error::from)
    } else {
        operate(guests, &member.guest, "configure_pair", args).await
    };
    let mut report = answered.map_err(|error| Failure {
        nothing_done: error.downcast_ref::<AskError>().is_some_and(AskError::nothing_done),
        error,
    })?;
    if report["state"] == "running" {
        report = seeded(guests, &member.guest, &report).await.map_err(|error| Failure {
            nothing_done: false,
            error,
        })?;
    }
    if succeeded(&report) {
        return Ok(report);
    }
    let why = report["error"].as_str().unwrap_or("it does not say why");
    Err(Failure {
        error: anyhow!(
            "configure_pair at guest {} ended as {}: {why}",
            member.guest,
            render::text(&report["state"])
        ),
        nothing_done: false,
    })
}

/// Takes back what was done, and says so.
async fn undo(guests: &impl Guests, members: &[&Member]) -> String {
    let mut told = Vec::new();
    for member in members {
        let text = match operate(guests, &member.guest, "dissolve_pair", Map::new()).await {
            Ok(report) if succeeded(&report) => format!("{} is as it was before", member.guest),
            Ok(report) => format!("{} is NOT as it was before: {}", member.guest, render::text(&report["error"])),
            Err(error) => format!("{} is NOT as it was before: {error:#}", member.guest),
        };
        told.push(text);
    }
    told.join("; ")
}

/// A guest of the pair to be.
struct Member {
    guest: String,
    data: IpAddr,
    link_port: u64,
    database_port: Option<u64>,
    management: Option<IpAddr>,
    pair: Option<String>,
}

impl Member {
    fn read(status: &Value) -> anyhow::Result<Self> {
        let guest = status["guest_id"].as_str().context("an answer names no guest")?.to_owned();
        let address = |key: &str| status[key].as_str().and_then(|text| text.parse::<IpAddr>().ok());
        Ok(Self {
            data: address("data_address").with_context(|| {
                format!("guest {guest} has no address on a data network; its agent needs data_interface or a network_file")
            })?,
            link_port: status["link_port"]
                .as_u64()
                .with_context(|| format!("guest {guest} does not say the port of its link"))?,
            database_port: status["database_port"].as_u64(),
            management: address("management_address"),
            pair: status["pair"]["id"].as_str().map(str::to_owned),
            guest,
        })
    }
}

/// What can be told from the answers of both.
fn fits(args: &CreateArgs, source: &Member, replica: &Member) -> anyhow::Result<()> {
    for member in [source, replica] {
        if let Some(pair) = &member.pair {
            bail!(
                "guest {} is in pair {pair} already; `pair dissolve` ends that one",
                member.guest
            );
        }
        if let Some(address) = args.vip.iter().find(|address| address.ip() == member.data) {
            bail!("the service address {address} is the own address of guest {}", member.guest);
        }
    }
    if source.data == replica.data && source.link_port == replica.link_port {
        bail!("both guests say that they are at {}, port {}", source.data, source.link_port);
    }
    Ok(())
}

struct Spec<'a> {
    args: &'a CreateArgs,
    id: &'a str,
    key: PairKey,
    user: String,
    password: String,
}

impl Spec<'_> {
    /// The block that a guest is told.
    fn for_guest(&self, role: &str, peer: &Member) -> Value {
        let args = self.args;
        let vip: Vec<String> = args.vip.iter().map(ToString::to_string).collect();
        let mut pair = json!({
            "id": self.id,
            "role": role,
            "peer": {"guest_id": peer.guest, "host": peer.data, "port": peer.link_port},
            "vip": vip,
            "plane": args.plane,
            "key": self.key.to_base64().expose_secret(),
            "replication": {"user": self.user, "password": self.password},
            "durability": args.durability,
            "failover": args.failover,
            "witness": args.witness.map(|at| json!({"host": at.ip(), "port": at.port()})),
            "blocked_ms": args.blocked_ms,
            "lease_ms": args.lease_ms,
        });
        if let Some(port) = peer.database_port {
            pair["peer"]["database_port"] = json!(port);
        }
        if let Some(host) = peer.management {
            pair["peer"]["management_host"] = json!(host);
        }
        pair
    }
}

fn random(bytes: &mut [u8]) {
    rand::fill(bytes).expect("the random generator of the system works");
}

fn random_hex(bytes: usize) -> String {
    let mut random_bytes = vec![0; bytes];
    random(&mut random_bytes);
    hex::encode(random_bytes)
}

/// Letters and digits, each as likely as any other.
fn password() -> String {
    let mut text = String::new();
    while text.len() < PASSWORD_LENGTH {
        let mut byte = [0];
        random(&mut byte);
        // 248 is the last multiple of 62 in a byte.
        if byte[0] < 248 {
            text.push(char::from(LETTERS[usize::from(byte[0]) % LETTERS.len()]));
        }
    }
    text
}
