"""Servers, their registry and what is between them fail at random: nothing is granted twice.

Three servers, their registry and their clients are on hosts of their own. `python
tests/python/test_cluster_faults.py 180` does it for three minutes with three nodes of etcd and
prints its verdict; a seed after the seconds repeats the dice, and `--registry postgresql` takes
PostgreSQL. `STRESS_SECONDS` and `STRESS_SEED` say the same to pytest, which does both.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import admissions
import exclusion
import pytest
from etcd_nodes import EtcdNodes
from hosts import Hosts
from lock_stress_client import KEYS
from postgres_server import PostgresServer
from stress_client import ASKED, LENT, MIXED, boot_time
from test_stress import rate_of, text_of
from zmqlocker import LockerClient

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: For how long each registry is tried. What differs is what the registry itself goes through.
SECONDS = {
    name: float(os.environ.get("STRESS_SECONDS", usual))
    for name, usual in (("etcd", "20"), ("postgresql", "5"))
}
SECOND = 1_000_000_000
PATIENCE = 60.0

SERVERS = ("s1", "s2", "s3")
NODES = ("e1", "e2", "e3")
POSTGRES = "postgres"
CLIENTS = "clients"

HOLDERS = 6
ASKERS = 4

#: What a fault leaves: for how many seconds it lasts, and what ends it.
Fault = tuple[float, "Callable[[], None]"]


@dataclass
class Run:
    """What happened."""

    seed: int
    faults: Counter[str] = field(default_factory=Counter)
    since: int = 0
    notes: list[exclusion.Note] = field(default_factory=list)
    grants: dict[str, list[admissions.Grant]] = field(default_factory=dict)


class Cluster:
    """Servers, their registry and clients, and what is done to them."""

    #: The hosts of the registry.
    nodes: Sequence[str]

    def __init__(self, run: Run, until: int, hosts: Hosts, folder: Path) -> None:
        self.run, self.until, self.hosts, self.folder = run, until, hosts, folder
        self.dice = random.Random(run.seed)
        self.registry = self.start_registry()
        self.servers = {name: self.start_server(name) for name in SERVERS}
        self.urls = ",".join(self.url(name) for name in SERVERS)
        run.since = boot_time()
        self.holders = [self.start_client("lock_stress_client.py", n) for n in range(HOLDERS)]
        self.askers = [self.start_client("cluster_client.py", n) for n in range(ASKERS)]
        #: What ends a fault, and when.
        self.mends: list[tuple[int, Callable[[], None]]] = []

    def start_registry(self) -> str:
        """Start the registry: its URL."""
        raise NotImplementedError

    def faults_of_registry(self) -> list[Callable[[str], Fault]]:
        raise NotImplementedError

    def close_registry(self) -> None:
        raise NotImplementedError

    def url(self, name: str) -> str:
        return f"tcp://{self.hosts.address(name)}:7777"

    def start_server(self, name: str) -> subprocess.Popen[str]:
        limits = [f"--limit={key}={text_of(rate_of(key))}" for key in ASKED + MIXED + LENT]
        options = [f"--url={self.url(name)}", "--bind-anyway", f"--name={name}"]
        options += [f"--registry={self.registry}", *limits]
        server = self.hosts.start(
            name, sys.executable, "-m", "zmqlocker", "serve", *options, stderr=subprocess.PIPE
        )
        assert server.stderr
        for line in server.stderr:
            if "serving " in line:
                return server
        return pytest.fail(f"{name} has ended")

    def start_client(self, program: str, number: int) -> subprocess.Popen[str]:
        life = self.run.faults.total()
        who, seed = f"{number}.{life}", f"{self.run.seed} {number} {life}"
        log = self.folder / program.removesuffix(".py")
        path = str(Path(__file__).with_name(program))
        arguments = [self.urls, str(log), str(self.until), seed]
        if program == "lock_stress_client.py":
            arguments.append(who)
        command = (sys.executable, "-X", "faulthandler", path, *arguments)
        return self.hosts.start(CLIENTS, *command, stderr=subprocess.PIPE)

    def mend(self, now: int) -> None:
        due = [mend for at, mend in self.mends if at <= now]
        self.mends = [(at, mend) for at, mend in self.mends if at > now]
        for mend in due:
            mend()

    def fault(self) -> None:
        """Have something happen, one thing at a time: two are more than may fail at once."""
        now = boot_time()
        self.mend(now)
        if self.mends or now > self.until - 4 * SECOND:
            return
        of_servers = [self.kill, self.stop, self.cut, self.cut_one_way, self.unplug, self.leave]
        fault = self.dice.choice([*of_servers, *self.faults_of_registry(), self.kill_client])
        length, mend = fault(self.dice.choice(SERVERS))
        self.run.faults[fault.__name__] += 1
        self.mends.append((now + round(length * SECOND), mend))

    def kill(self, name: str) -> Fault:
        self.end(name, signal.SIGKILL)
        return self.dice.choice((0.0, 1.0, 3.0)), lambda: self.restart(name)

    def leave(self, name: str) -> Fault:
        self.end(name, signal.SIGTERM)
        return self.dice.choice((0.0, 1.0)), lambda: self.restart(name)

    def end(self, name: str, number: signal.Signals) -> None:
        server = self.servers[name]
        server.send_signal(number)
        server.communicate(timeout=PATIENCE)
        assert server.returncode in {0, -number}

    def restart(self, name: str) -> None:
        self.servers[name] = self.start_server(name)

    def stop(self, name: str) -> Fault:
        server = self.servers[name]
        server.send_signal(signal.SIGSTOP)
        return self.dice.choice((0.3, 1.0, 3.0)), lambda: server.send_signal(signal.SIGCONT)

    def cut(self, name: str) -> Fault:
        """A server and its registry do not hear each other; clients reach both."""
        return self.part(name, self.nodes, both_ways=True)

    def cut_one_way(self, name: str) -> Fault:
        """A server beats and is heard, and hears of nothing."""
        return self.part(name, self.nodes, both_ways=False)

    def part(self, name: str, others: Sequence[str], *, both_ways: bool) -> Fault:
        self.hosts.cut(name, others)
        cut = [name]
        if both_ways:
            for other in others:
                self.hosts.cut(other, [name])
                cut.append(other)

        def mend() -> None:
            for one in cut:
                self.hosts.mend(one)

        return self.dice.choice((0.3, 1.0, 3.0)), mend

    def unplug(self, name: str) -> Fault:
        self.hosts.plug(name, is_in=False)
        return self.dice.choice((0.3, 1.0, 3.0)), lambda: self.hosts.plug(name, is_in=True)

    def kill_client(self, _: str) -> Fault:
        number = self.dice.randrange(HOLDERS)
        self.holders[number].kill()
        self.holders[number].communicate(timeout=PATIENCE)
        self.holders[number] = self.start_client("lock_stress_client.py", number)
        return 0.0, lambda: None

    def finish(self) -> None:
        """Let all come to their end. Nobody may wait for ever, and nothing may stay held."""
        self.mend(self.until * 2)
        for client in [*self.holders, *self.askers]:
            try:
                errors = client.communicate(timeout=PATIENCE)[1]
            except subprocess.TimeoutExpired:
                client.send_signal(signal.SIGABRT)
                errors = client.communicate(timeout=PATIENCE)[1]
                pytest.fail(f"a client waits for ever:\n{errors}")
            assert client.returncode == 0, errors
        check = subprocess.run(
            self.hosts.command(CLIENTS, sys.executable, __file__, "heal", self.urls),
            check=False,
            timeout=PATIENCE * 2,
            capture_output=True,
            text=True,
        )
        assert check.returncode == 0, check.stderr
        for name in SERVERS:
            self.end(name, signal.SIGTERM)

    def close(self) -> None:
        for process in [*self.servers.values(), *self.holders, *self.askers]:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.communicate(timeout=PATIENCE)
        self.close_registry()


class EtcdCluster(Cluster):
    """With three nodes of etcd: what happens to their leader happens to the registry."""

    nodes = NODES

    def start_registry(self) -> str:
        self.etcd = EtcdNodes(self.hosts, NODES, self.folder)
        self.etcd.leader()
        return self.etcd.url

    def faults_of_registry(self) -> list[Callable[[str], Fault]]:
        return [self.kill_leader, self.stop_leader, self.cut_leader]

    def kill_leader(self, _: str) -> Fault:
        leader = self.etcd.leader()
        self.etcd.kill(leader)
        return 2.0, lambda: self.etcd.start_again(leader)

    def stop_leader(self, _: str) -> Fault:
        process = self.etcd.processes[self.etcd.leader()]
        process.send_signal(signal.SIGSTOP)
        return self.dice.choice((0.5, 3.0)), lambda: process.send_signal(signal.SIGCONT)

    def cut_leader(self, _: str) -> Fault:
        leader = self.etcd.leader()
        return self.part(leader, [name for name in NODES if name != leader], both_ways=True)

    def close_registry(self) -> None:
        self.etcd.close()


class PostgresCluster(Cluster):
    """With one PostgreSQL: while it is away nothing is granted."""

    nodes = (POSTGRES,)

    def start_registry(self) -> str:
        address, within = self.hosts.address(POSTGRES), self.hosts.command(POSTGRES)
        self.postgres = PostgresServer(address, within)
        return self.postgres.url

    def faults_of_registry(self) -> list[Callable[[str], Fault]]:
        return [self.crash_postgres, self.freeze_postgres, self.unplug_postgres]

    def crash_postgres(self, _: str) -> Fault:
        self.postgres.crash()
        return self.dice.choice((0.0, 1.0, 2.0)), self.postgres.start

    def freeze_postgres(self, _: str) -> Fault:
        self.postgres.freeze()
        return self.dice.choice((0.3, 1.0, 2.0)), self.postgres.go_on

    def unplug_postgres(self, _: str) -> Fault:
        return self.unplug(POSTGRES)

    def close_registry(self) -> None:
        self.postgres.close()


CLUSTERS: dict[str, type[Cluster]] = {"etcd": EtcdCluster, "postgresql": PostgresCluster}


def heal(urls: str) -> None:
    """See that everything is served again: what was killed holds for as long as its lease."""
    with LockerClient(urls.split(","), timeout=PATIENCE) as client:
        for key in KEYS:
            with client.lock(key):
                pass
        for key in ASKED:
            client.try_acquire(key)


def have_faults(registry: str, seconds: float, seed: int, folder: Path) -> Run:
    """Let clients go on for so long, while things fail."""
    print(f"{registry}, seed {seed}, {seconds} s, {HOLDERS} holders, {ASKERS} askers", flush=True)
    run, kind = Run(seed), CLUSTERS[registry]
    with Hosts((*SERVERS, *kind.nodes, CLIENTS)) as hosts, contextlib.ExitStack() as stack:
        until = boot_time() + round((seconds + 5) * SECOND)
        cluster = kind(run, until, hosts, folder)
        stack.callback(cluster.close)
        while boot_time() < until:
            # Faults come at any time, whatever has happened by then.
            time.sleep(cluster.dice.uniform(0.02, 0.5))
            cluster.fault()
        cluster.finish()
    run.notes = list(exclusion.read(folder / "lock_stress_client"))
    grants = defaultdict(list)
    for note in admissions.read(folder / "cluster_client"):
        if note.cost:
            grants[note.key].append(admissions.Grant(note.before, note.after, note.cost))
    run.grants = dict(grants)
    return run


def show(run: Run) -> None:
    print(f"faults: {dict(run.faults)}")
    for key, ordered in exclusion.sections(run.notes).items():
        print(f"  lock {key:10} {len(ordered):6} critical sections")
    for key, grants in sorted(run.grants.items()):
        print(f"  limit {key:20} {sum(grant.cost for grant in grants):6} permits")


def violations(run: Run) -> list[str]:
    """What must not have happened."""
    found = exclusion.violations(run.notes)
    for key, grants in run.grants.items():
        found += [f"{key}: {one}" for one in rate_of(key).violations(grants, run.since)]
    return found


@pytest.fixture(scope="module", params=CLUSTERS)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    registry = request.param
    seed = int(os.environ.get("STRESS_SEED", str(time.time_ns() % 1_000_000)))
    run = have_faults(registry, SECONDS[registry], seed, tmp_path_factory.mktemp("cluster"))
    show(run)
    return run


def test_whatever_fails_nothing_is_granted_twice(run: Run) -> None:
    assert violations(run) == [], f"seed {run.seed}"
    assert set(exclusion.sections(run.notes)) == set(KEYS), "not all locks were held"
    assert set(run.grants) >= set(ASKED), "not all limits were used"


def test_a_permit_too_many_in_the_log_would_be_seen(run: Run) -> None:
    """The same log, with all permits of one of its grants once more than the limit has."""
    for key, grants in run.grants.items():
        rate = rate_of(key)
        planted = grants[0]._replace(cost=rate.allowed(rate.length) + 1)
        assert rate.violations([*grants, planted], run.since) != []


if __name__ == "__main__":
    if sys.argv[1:2] == ["heal"]:
        heal(sys.argv[2])
        sys.exit()
    parser = argparse.ArgumentParser()
    parser.add_argument("seconds", type=float, nargs="?", default=SECONDS["etcd"])
    parser.add_argument("seed", type=int, nargs="?", default=time.time_ns() % 1_000_000)
    parser.add_argument("--registry", choices=CLUSTERS, default="etcd")
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        done = have_faults(told.registry, told.seconds, told.seed, Path(name))
    show(done)
    wrong = violations(done)
    print("\n".join(wrong) if wrong else "no lock had two holders, no limit was exceeded")
    sys.exit(bool(wrong))
